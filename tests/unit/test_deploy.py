"""The samples for operators: they name metrics that exist, and settings that the engine needs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from labrats.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def metrics() -> set[str]:
    families = Metrics().registry.collect()
    return {f"{family.name}{suffix}" for family in families for suffix in SUFFIXES[family.type]}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_text())
    return found


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])


@pytest.mark.parametrize("query", [*queries()])
def test_query_names_metrics_that_exist(query: str) -> None:
    named = set(re.findall(r"labrats_\w+", query))
    assert named <= metrics()
    assert named or query.startswith("up{")


def test_dashboard_or_alerts_show_each_metric_that_tells_of_trouble() -> None:
    shown = " ".join(queries())
    for name in ("store_errors", "disk_full", "degraded", "watch_silence", "log_lines_lost", "queue_depth"):
        assert f"labrats_{name}" in shown


def test_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule) >= {"alert", "expr", "labels", "annotations"}, rule
        assert set(rule["annotations"]) == {"summary", "action"}, rule


def test_panels_of_the_dashboard_do_not_overlap_and_have_one_data_source() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    sources = {target["datasource"]["uid"] for panel in dashboard()["panels"] for target in panel["targets"]}
    assert sources == {"${datasource}"}


def test_scrape_sample_reads_the_alerts() -> None:
    sample = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert sample["rule_files"] == ["alerts.yml"]
    assert sample["scrape_configs"][0]["job_name"] == "labrats"


@pytest.mark.parametrize(
    ("name", "streams"), [("Caddyfile", "flush_interval -1"), ("nginx.conf", "proxy_buffering off")]
)
def test_reverse_proxies_do_not_hold_back_live_logs(name: str, streams: str) -> None:
    text = (DEPLOY / name).read_text()
    assert streams in text
    assert "LABRATS_PUBLIC_URL" in text
