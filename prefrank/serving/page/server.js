// Requests to this server, and the same requests as code to paste. URLs are relative: any path of a proxy will do.

const STORED = "prefrank-key";
let key = stored();

export const address = (path) => new URL(path, document.baseURI).href;

/** What the server refused, or that it gave no answer: `message` is its sentence, `status` is 0 without an answer. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON that the server answers with; a body makes it a POST. */
export async function ask(path, body, signal) {
  if (!/^[!-~]*$/.test(key)) throw new Refused(401, "The key holds characters that no key has; copy it again.");
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const request = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
  const answer = await fetch(address(path), request).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, `No answer from ${address(path)} (${error.message}). Is the server running?`);
  });
  const value = await answer.json().catch(() => null);
  signal?.throwIfAborted();
  if (answer.ok && value) return value;
  throw new Refused(answer.status, refusal(answer, value));
}

function refusal(answer, value) {
  const strange = `${answer.status} ${answer.statusText}, with no answer of prefrank; is a proxy between?`;
  const sentence = value?.error?.message ?? strange;
  const wait = answer.headers.get("Retry-After");
  return wait ? `${sentence} Try again in ${wait} s.` : sentence;
}

/** Use this API key from now on, in this tab only. */
export function keep(text) {
  key = text;
  try {
    sessionStorage.setItem(STORED, text);
  } catch {
    // Storage is off in this browser: the key lasts as long as the page
  }
}

function stored() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return "";
  }
}

// In code the key is named, never written: what is copied gets pasted where others read it

export function asCurl(path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const named = key ? ` \\\n  -H "Authorization: Bearer $PREFRANK_SERVER_KEY"` : "";
  const start = `curl ${quoted(address(path))} -H 'Content-Type: application/json'`;
  return `${start}${named} \\\n  --data-raw ${quoted(JSON.stringify(body))}`;
}

export function asPython(path, body) {
  const named = key ? `, "Authorization": "Bearer " + os.environ["PREFRANK_SERVER_KEY"]` : "";
  return [
    `import json${key ? "\nimport os" : ""}`,
    "from urllib.request import Request, urlopen\n",
    `body = ${JSON.stringify(body, null, 4)}`,
    `headers = {"Content-Type": "application/json"${named}}`,
    `with urlopen(Request(${JSON.stringify(address(path))}, json.dumps(body).encode(), headers)) as answer:`,
    `    for reply in json.load(answer)["ranking"]:`,
    `        print(reply["rank"], reply["score"], body["replies"][reply["index"]])`,
  ].join("\n");
}
