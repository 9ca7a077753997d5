//! New files below `runtimes/` must be embedded too, which cargo would not notice by itself.

fn main() {
    println!("cargo::rerun-if-changed=../../runtimes");
}
