// A page with a server action, which works without JavaScript in the browser.
import { cookies } from "next/headers";
import { redirect } from "next/navigation";
import { Suspense } from "react";

async function Greeting() {
  const name = (await cookies()).get("name")?.value;
  return <p>Hello {name ?? "stranger"}</p>;
}

async function save(data) {
  "use server";
  (await cookies()).set("name", data.get("name"));
  redirect("/form");
}

export default function Form() {
  return (
    <form action={save}>
      <input name="name" />
      <button>Save</button>
      <Suspense fallback={null}>
        <Greeting />
      </Suspense>
    </form>
  );
}
