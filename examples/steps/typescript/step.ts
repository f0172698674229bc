// Step is for durable functions in TypeScript: functions with "durable: true" in quipu.yaml, whose calls have a journal.
//
//   import { serve } from "./step.ts";
//
//   serve(async (call) => {
//     const wanted = call.json();
//     const receipt = await call.step("charge", () => charge(wanted, call.key()), { attempts: 3 });
//     await call.sleep(86_400_000); // nothing runs meanwhile
//     return { receipt, answer: await call.waitEvent("approved", 3_600_000) };
//   });
//
// A step's result is recorded once. When the function runs again, after a crash or a wait, it gets what was recorded: so all between
// steps must do the same each time, which leaves no room for the time, chance and the world outside. A step that was under way
// in a crash is done again; call.key() before it is the same then. Steps that are not awaited one by one belong into call.all.
//
// A run that waits is left where it stands: its promise never settles, so neither catch nor finally sees it.
//
// One file, nothing but Node.js. docs/reference/steps.md of Quipu has the protocol.

import * as http from "node:http";

const journalPath = "/v1.0-quipu/journal";
const shortWaitMs = 500; // that a run waits itself, before it ends to be called again
const attemptsToSend = 3;

/** How a step or a call failed, as it was recorded. */
export class StepError extends Error {
  type: string;
  constructor(message: string, type = "") {
    super(message);
    this.type = type;
  }
}

/** Thrown by a step that is not worth another attempt. */
export class Final extends Error {}

/** Thrown by waitEvent. */
export class Timeout extends Error {}

/** Thrown by a function, its last word: the execution fails, and its caller gets the status. */
export class Refusal extends Error {
  status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Retry {
  attempts?: number; // default 1
  backoffMs?: number; // before the second; default 100, then doubling
}

interface Failure {
  type?: string;
  message: string;
}

interface Entry {
  id: string;
  kind: string;
  name?: string;
  done?: boolean;
  timeout?: boolean;
  result?: unknown;
  error?: Failure;
  ms?: number;
  path?: string;
  input?: unknown;
}

type End = { places: string[] } | { problem: Error };

const never = new Promise<never>(() => {});

/** One run of an execution, or one branch of it. */
export class Call {
  headers: http.IncomingHttpHeaders;
  body: Buffer;
  id: string;
  /** @internal */ run: string;
  /** @internal */ journal = new Map<string, Entry>();
  private prefix: string;
  private next = 0;
  private end: (e: End) => void;

  /** @internal */
  constructor(headers: http.IncomingHttpHeaders, body: Buffer, end: (e: End) => void, prefix = "") {
    this.headers = headers;
    this.body = body;
    this.id = String(headers["quipu-execution"] ?? "");
    this.run = String(headers["quipu-run"] ?? "");
    this.prefix = prefix;
    this.end = end;
  }

  /** The body of the request, which is JSON. */
  json(): any {
    try {
      return JSON.parse(this.body.toString());
    } catch (problem) {
      throw new Refusal(400, String(problem));
    }
  }

  /** Names what the next step does outside, the same in each run: for who can leave out doubles by it. */
  key(): string {
    return `${this.id}/${this.prefix}${this.next}`;
  }

  /** Do what lies outside, once. What it throws is recorded after that many attempts, and thrown as a StepError. */
  step<T>(name: string, run: () => T | Promise<T>, retry: Retry = {}): Promise<T> {
    return this.doStep(name, run, retry, true);
  }

  /** Go on after a while, whatever is restarted meanwhile. */
  async sleep(ms: number): Promise<void> {
    await this.begin({ id: this.place(), kind: "sleep", ms });
  }

  /** The data of an event that somebody raises for this execution, also if that was before. Throws Timeout. */
  async waitEvent<T = any>(name: string, timeoutMs?: number): Promise<T> {
    const there = await this.begin({ id: this.place(), kind: "event", name, ms: timeoutMs });
    if (there.timeout) throw new Timeout(`no event ${name} came in time`);
    return result<T>(there);
  }

  /** Call another function with POST: a durable one as an execution of its own, an atomic one exactly once. */
  async invoke<T = any>(name: string, input: unknown = null, path = "/"): Promise<T> {
    return result<T>(await this.begin({ id: this.place(), kind: "call", name, path, input }));
  }

  /** Run functions side by side, at most 1,000; each gets a Call of its own. Settles when all are over, as the first that failed if one did. The run
   * ends when all that is left waits. */
  async all<T>(branches: ((call: Call) => Promise<T>)[]): Promise<T[]> {
    const place = this.place();
    const outcomes = await Promise.all(branches.map((branch, n) => this.branch(branch, `${place}/${n}/`)));
    const ends = outcomes.flatMap((o) => ("end" in o ? [o.end] : []));
    for (const end of ends) if ("problem" in end || end.places.length === 0) return this.stop(end);
    if (ends.length > 0) return this.stop({ places: ends.flatMap((e) => ("places" in e ? e.places : [])) });
    return outcomes.map((o) => {
      if ("failed" in o) throw o.failed;
      return (o as { value: T }).value;
    });
  }

  saga(): Saga {
    return new Saga(this);
  }

  private branch<T>(run: (call: Call) => Promise<T>, prefix: string): Promise<{ value: T } | { failed: unknown } | { end: End }> {
    return new Promise((settle) => {
      const call = new Call(this.headers, this.body, (end) => settle({ end }), prefix);
      call.journal = this.journal;
      Promise.resolve()
        .then(() => run(call))
        .then((value) => settle({ value }), (failed) => settle({ failed }));
    });
  }

  private place(): string {
    return `${this.prefix}${this.next++}`;
  }

  /** @internal */
  stop(end: End): Promise<never> {
    this.end(end);
    return never;
  }

  /** @internal */
  async doStep<T>(name: string, run: () => T | Promise<T>, retry: Retry, keep: boolean): Promise<T> {
    const entry: Entry = { id: this.place(), kind: "step", name };
    const known = await this.known(entry);
    if (known) return result<T>(known);
    try {
      entry.result = (await tried(run, retry)) ?? null;
    } catch (problem) {
      const failed = problem instanceof Error ? problem : new Error(String(problem));
      if (!keep) return this.stop({ problem: new Error(`${name}: ${failed.message}`) });
      entry.error = { type: (failed as StepError).type || failed.name, message: failed.message };
    }
    return result<T>((await this.append(entry)) ?? entry);
  }

  private async known(entry: Entry): Promise<Entry | null> {
    const known = this.journal.get(entry.id);
    if (known && (known.kind !== entry.kind || (known.name ?? "") !== (entry.name ?? ""))) return this.append(entry); // which the platform refuses
    return known ?? null;
  }

  private async begin(entry: Entry): Promise<Entry> {
    let there = (await this.known(entry)) ?? (await this.append(entry))!;
    if (!there.done) there = (await this.ask("GET", `${journalPath}/wait?id=${entry.id}&ms=${shortWaitMs}`)) as Entry;
    return there.done ? there : this.stop({ places: [entry.id] });
  }

  private append(entry: Entry): Promise<Entry | null> {
    return this.ask("POST", journalPath, JSON.stringify(entry)) as Promise<Entry | null>;
  }

  /** @internal */
  async read(): Promise<void> {
    for (let from = 0; ; ) {
      const page = (await this.ask("GET", `${journalPath}?from=${from}`)) as { entries: Entry[] | null; next?: number };
      for (const entry of page.entries ?? []) this.journal.set(entry.id, entry);
      if (!page.next) return;
      from = page.next;
    }
  }

  private async ask(method: string, path: string, body?: string): Promise<unknown> {
    let reply: Reply;
    try {
      reply = await send(method, path, this.run, body);
    } catch (problem) {
      return this.stop({ problem: new Error(`the node does not answer: ${problem}`) });
    }
    if (reply.headers["quipu-suspended"]) return this.stop({ places: [] });
    if (reply.status === 204) return null;
    if (reply.status === 200) return JSON.parse(reply.text);
    if (reply.text.includes('"Q0822"')) return this.stop({ places: [] }); // another run goes on
    return this.stop({ problem: new Error(`the journal answers ${reply.status}: ${reply.text.slice(0, 500)}`) });
  }
}

/** Remembers how to undo what was done. */
export class Saga {
  private call: Call;
  private list: { name: string; undo: () => unknown }[] = [];

  constructor(call: Call) {
    this.call = call;
  }

  /** Add what undoes the step before. */
  onUndo(name: string, undo: () => unknown): void {
    this.list.push({ name, undo });
  }

  /** Undo what was done, the last first, each as a step. What cannot be undone is no result: the run fails, and is made again. */
  async undo(retry: Retry = {}): Promise<void> {
    for (let one = this.list.pop(); one; one = this.list.pop()) await this.call.doStep(one.name, one.undo, retry, false);
  }
}

async function tried<T>(run: () => T | Promise<T>, retry: Retry): Promise<T> {
  for (let attempt = 1, wait = retry.backoffMs ?? 100; ; attempt++, wait *= 2) {
    try {
      return await run();
    } catch (problem) {
      if (problem instanceof Final || attempt >= (retry.attempts ?? 1)) throw problem;
      await new Promise((go) => setTimeout(go, wait));
    }
  }
}

function result<T>(entry: Entry): T {
  if (entry.error) throw new StepError(entry.error.message, entry.error.type);
  return entry.result as T;
}

interface Reply {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
}

const agent = new http.Agent({ keepAlive: true });

/** Ask the node. An entry may be sent twice: it is in the journal once. */
async function send(method: string, path: string, run: string, body?: string): Promise<Reply> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await sendOnce(method, path, run, body);
    } catch (problem) {
      if (attempt === attemptsToSend) throw problem;
    }
  }
}

function sendOnce(method: string, path: string, run: string, body?: string): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const headers: http.OutgoingHttpHeaders = { "Quipu-Run": run, "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body ?? "") };
    if (process.env.DAPR_API_TOKEN) headers["dapr-api-token"] = process.env.DAPR_API_TOKEN;
    const request = http.request({ agent, host: "127.0.0.1", port: Number(process.env.DAPR_HTTP_PORT), method, path, headers }, (reply) => {
      const parts: Buffer[] = [];
      reply.on("data", (part) => parts.push(part));
      reply.on("error", reject);
      reply.on("end", () => resolve({ status: reply.statusCode ?? 0, headers: reply.headers, text: Buffer.concat(parts).toString() }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Make one run. For those who have a server already. */
export async function handle(headers: http.IncomingHttpHeaders, body: Buffer, run: (call: Call) => unknown): Promise<Answer> {
  const text = { "Content-Type": "text/plain; charset=utf-8" };
  try {
    const outcome = await new Promise<{ value: unknown } | End>((settle, fail) => {
      const call = new Call(headers, body, settle);
      if (!call.run) throw new Error("this is no call of a durable function: does quipu.yaml say durable: true?");
      const ready = (headers["quipu-journal"] ?? "0") === "0" ? Promise.resolve() : call.read();
      ready.then(() => run(call)).then((value) => settle({ value }), fail);
    });
    if ("problem" in outcome) throw outcome.problem;
    if ("places" in outcome) return { status: 202, headers: { "Quipu-Suspended": outcome.places.join(",") || "-" }, body: "" };
    return { status: 200, headers: { "Content-Type": "application/json" }, body: JSON.stringify(outcome.value ?? null) };
  } catch (problem) {
    return { status: problem instanceof Refusal ? problem.status : 500, headers: text, body: String(problem instanceof Error ? problem.message : problem) };
  }
}

/** Serve calls of a durable function where the platform expects them. */
export function serve(run: (call: Call) => unknown): http.Server {
  const server = http.createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", async () => {
      const answer = await handle(request.headers, Buffer.concat(parts), run);
      response.writeHead(answer.status, { ...answer.headers, "Content-Length": Buffer.byteLength(answer.body) });
      response.end(answer.body);
    });
  });
  return process.env.QUIPU_SOCKET ? server.listen(process.env.QUIPU_SOCKET) : server.listen(Number(process.env.PORT), "127.0.0.1");
}
