// Links that the browser follows without loading a page anew.
import Link from "next/link";
import Counter from "./counter";

export default function Nav() {
  return (
    <main>
      <h1>First</h1>
      <Counter />
      <Link href="/nav/second">to the second</Link>
    </main>
  );
}
