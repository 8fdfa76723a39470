// Uses of the generated types by a front end. If a line does not compile, the OpenAPI document has changed.
import type { components, operations, paths } from "./api";

type Schemas = components["schemas"];
type Answer<Operation extends { responses: object }, Status extends keyof Operation["responses"]> =
  Operation["responses"][Status] extends { content: { "application/json": infer Body } } ? Body : never;

export const submission: Schemas["Submission"] = {
  source: "dashboard",
  type: "code-review",
  prompt: "Review the change.",
  config: { provider: "claude", effort: "high" },
  metadata: { repo: "octocat/hello-world" },
};

export const agent: Schemas["AgentBody"] = {
  name: "ai-fixer",
  eventTriggers: [{ source: "github", events: ["issues.labeled"], filters: { "label.name": ["ai"] } }],
};

export function jobIdOf(answer: Answer<operations["submit"], 201>): string {
  return answer.jobId;
}

export function lastLine(job: Schemas["JobDetail"]): string | undefined {
  return job.status === "completed" ? undefined : job.logs.at(-1);
}

export function refusal(error: Answer<operations["submit"], 422>): string {
  return [error.error, ...(error.details ?? []).map((detail) => `${detail.field}: ${detail.message}`)].join("\n");
}

export function totalCost(answer: Answer<paths["/api/stats/timeseries"]["get"], 200>): number {
  return answer.series.flatMap((series) => series.points).reduce((sum, [, value]) => sum + value, 0);
}

// @ts-expect-error: there is no such status
export const impossible: Schemas["JobItem"]["status"] = "pending";

// @ts-expect-error: a submission requires `source`
export const incomplete: Schemas["Submission"] = { type: "code-review" };
