//! The spawner alone, for tests of this crate. The platform runs it as `mayfly spawner`.

fn main() {
    std::process::exit(mayfly_sandbox::spawner::main());
}
