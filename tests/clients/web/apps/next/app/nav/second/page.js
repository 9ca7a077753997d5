// A page with a part that is made anew for each visitor.
import Link from "next/link";
import { headers } from "next/headers";
import { Suspense } from "react";

async function Name() {
  return (await headers()).get("x-scf-name");
}

export default function Second() {
  return (
    <main>
      <h1>
        Second, from <Suspense fallback="?"><Name /></Suspense>
      </h1>
      <Link href="/nav">back</Link>
    </main>
  );
}
