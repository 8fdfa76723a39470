"""The agents and instructions of a new engine."""

import re

from labrats.seeds import default_agents


def test_the_triager_is_told_to_use_the_labels_that_its_policy_allows() -> None:
    """Other labels are refused, and each such job said so."""
    agent, instructions = next(each for each in default_agents() if each[0].name == "ai-triager")
    text = next(each.spec.content for each in instructions if each.name == "triage-issue")
    report = agent.spec.report
    assert report
    assert report.policy
    assert report.policy.labels
    sentence = text.partition("Use only these labels: ")[2].partition(". Others")[0]
    assert tuple(re.findall("`([^`]+)`", sentence)) == report.policy.labels
