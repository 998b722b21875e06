// The scenario of tests/outside with fetch, as Node and browsers have it. Usage: node.mjs URL DOOR
const [url, door] = process.argv.slice(2);
const key = `${url}/kv/outside/node-${door}`;

async function send(method, path, body, headers = {}) {
  const answer = await fetch(path, { method, body, headers });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

function check(holds, what, answer) {
  if (holds) return;
  console.error(what, answer.status, Object.fromEntries(answer.headers), answer.text.slice(0, 600));
  process.exit(1);
}

const json = { "content-type": "application/json" };
await send("DELETE", key);
let answer = await send("PUT", key, '{"a": 1}\n', json);
check(answer.status === 201, "a put creates", answer);
const first = JSON.parse(answer.text).uuid;

answer = await send("GET", key);
check(answer.text === '{"a": 1}\n', "a value comes back as it was put", answer);
const tag = answer.headers.get("etag");
answer = await send("GET", `${key}?format=envelope`);
check(JSON.parse(answer.text).data?.a === 1, "a JSON value is shown as JSON", answer);

answer = await send("PUT", key, '{"a": 2}', { ...json, "if-match": tag });
if (tag.startsWith("W/")) {
  // a compressing proxy has made the tag weak, which If-Match never takes (RFC 9110, 13.1.1)
  check(answer.status === 412, "a weak tag is refused", answer);
  check(answer.text.includes("compress"), "the refusal names the proxy that compresses", answer);
  answer = await send("PUT", key, '{"a": 2}', { ...json, "if-match": `"${first}"` });
}
check(answer.status === 200, "a swap on the current version succeeds", answer);
const second = JSON.parse(answer.text).uuid;
answer = await send("PUT", key, '{"a": 3}', { ...json, "if-match": `"${first}"` });
check(answer.status === 412, "a swap on an old version is refused", answer);
check(JSON.parse(answer.text).current.uuid === second, "the refusal shows what is there", answer);

answer = await send("PUT", `${key}?ttl=3s`);
check(answer.status === 400, "an empty put without a type is refused", answer);
answer = await send("GET", key);
check(answer.text === '{"a": 2}', "and destroys nothing", answer);
answer = await send("PUT", key, "", { "content-type": "text/plain" });
check(answer.status === 200, "an empty value with a type is stored", answer);

// `fetch` says so in `Sec-Fetch-*` or `Origin` only where it runs in a page
answer = await send("PUT", `${key}?ttl=soon`, "x".repeat(300_000), { "content-type": "text/plain" });
check(answer.status === 400, "a bad duration is refused after the body was sent", answer);
answer = await send("GET", key);
check(answer.status === 200, "the client goes on after an early refusal", answer);

answer = await send("DELETE", key);
check(answer.status === 200, "a delete succeeds", answer);
answer = await send("GET", key);
check(answer.status === 404, "what is deleted is absent", answer);
