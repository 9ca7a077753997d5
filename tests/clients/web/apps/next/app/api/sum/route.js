// A route handler: hashes what it is sent.
import { createHash } from "node:crypto";

export async function POST(request) {
  const hash = createHash("sha256");
  let n = 0;
  for await (const part of request.body) {
    hash.update(part);
    n += part.length;
  }
  return Response.json({ n, sha256: hash.digest("hex"), prefix: request.headers.get("x-forwarded-prefix") });
}
