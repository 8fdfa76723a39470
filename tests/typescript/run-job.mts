// Submits a job and waits for its end, with the generated types. Node runs it as it is.
import type { components } from "./api.d.ts";

type Schemas = components["schemas"];
declare const process: { env: Record<string, string> };

const { URL: url, KEY: key } = process.env;
const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };

async function call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
  const answer = await fetch(url + path, { method, headers, body: body === undefined ? null : JSON.stringify(body) });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()) as Answer;
}

const submission: Schemas["Submission"] = {
  source: "manual",
  type: "task",
  prompt: "Hello",
  config: { provider: "mock" },
  concurrency: { key: "one-at-a-time" },
};
const { jobId } = await call<Schemas["Submitted"]>("POST", "/api/jobs/submit", submission);
let job: Schemas["JobDetail"];
do {
  job = await call<Schemas["JobDetail"]>("GET", `/api/jobs/${jobId}`);
  await new Promise((resolve) => setTimeout(resolve, 100));
} while (job.status === "waiting" || job.status === "active");
console.log(job.status);
