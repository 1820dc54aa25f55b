"""The boards keep the rules of Grafana's dashboard-linter, and show every metric of the contract.

The linter's rules for the labels job and instance are not among them: they are about targets, and the boards are about
DistillJobs, which have a label of their own.
"""

import json
import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest
import yaml

from distill_api.constants import Phase
from distill_api.metrics import JOB_LABEL
from distill_api.status import Spent
from tests.chart.test_monitoring import BOARDS, NAMES, RECORDINGS, metric_names
from tests.support.prometheus.dashboards import panels

LOADED = {path.stem: json.loads(path.read_text()) for path in BOARDS}
PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}") for uid, board in LOADED.items() for panel in panels(board)
]
EXPRESSIONS = [
    (f"{uid}: {panel['title']}", target["expr"])
    for uid, board in LOADED.items()
    for panel in panels(board)
    for target in panel["targets"]
]
UNITS = {"short", "none", "percentunit", "percent", "s", "ops", "bytes", "decmbytes", "sci", "watt", "celsius"}
"""Grafana's names of units, as far as the boards use them."""
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
recorded = pytest.mark.parametrize("name", [rule["record"] for group in yaml.safe_load(RECORDINGS.read_text())["groups"]
                                            for rule in group["rules"]])  # fmt: skip


def of_both(test: Any) -> Any:
    return pytest.mark.parametrize("board", LOADED.values(), ids=LOADED.keys())(test)


def of_every_panel(test: Any) -> Any:
    return pytest.mark.parametrize("panel", PANELS)(test)


@of_every_panel
def test_a_panel_says_what_it_shows_in_which_unit(panel: Any) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None


@of_every_panel
def test_a_panel_asks_the_chosen_data_source(panel: Any) -> None:
    assert panel["datasource"] == DATA_SOURCE
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == DATA_SOURCE
        assert target["legendFormat"] or panel["type"] == "table"
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)


@of_every_panel
def test_rates_have_grafanas_window(panel: Any) -> None:
    for target in panel["targets"]:
        windows = re.findall(r"\b(i?rate|increase)\([^\[\]]*\[([^\]]+)\]", target["expr"])
        assert len(windows) == len(re.findall(r"\b(?:i?rate|increase)\(", target["expr"])), target["expr"]
        allowed = {"rate": {"$__rate_interval"}, "increase": {"$__rate_interval", "$__interval", "$__range"}}
        assert all(window in allowed[function] for function, window in windows), target["expr"]


@of_every_panel
def test_a_counter_is_shown_as_its_growth(panel: Any) -> None:
    for target in panel["targets"]:
        counters = re.findall(r"\b(distill_\w+_(?:total|bucket|sum|count))\b", target["expr"])
        growing = re.findall(r"\b(?:rate|increase)\((distill_\w+)", target["expr"])
        assert Counter(counters) == Counter(growing), target["expr"]


@of_both
def test_ids_and_titles_are_unique_and_panels_do_not_overlap(board: Any) -> None:
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    shown = list(panels(board))
    ids = [panel["id"] for panel in (*rows, *shown)]
    titles = [panel["title"] for panel in shown]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    for one, other in combinations([panel["gridPos"] for panel in board["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])


@of_both
def test_a_board_is_read_only_and_follows_its_variables(board: Any) -> None:
    assert board["editable"] is False
    first, *others = board["templating"]["list"]
    assert (first["name"], first["label"], first["query"]) == ("datasource", "Data source", "prometheus")
    for variable in others:
        assert variable["datasource"] == DATA_SOURCE
        assert variable["refresh"] == 2, "values are asked for again with every other time range"
        assert variable["label"]


def test_boards_link_to_each_other() -> None:
    uids = {board["uid"] for board in LOADED.values()}
    assert uids == LOADED.keys()
    linked = {uid: set(re.findall(r'"/d/([\w-]+)', json.dumps(board))) for uid, board in LOADED.items()}
    assert linked == {"distill-fleet": {"distilljob"}, "distilljob": {"distill-fleet"}}


def test_a_row_of_the_fleet_opens_the_jobs_board_with_its_name() -> None:
    (table,) = (panel for panel in panels(LOADED["distill-fleet"]) if panel["type"] == "table")
    (job,) = (override for override in table["fieldConfig"]["overrides"] if override["matcher"]["options"] == "Job")
    (url,) = (link["url"] for link in job["properties"][0]["value"])
    variables = {variable["name"] for variable in LOADED["distilljob"]["templating"]["list"]}
    assert set(re.findall(r"var-(\w+)=", url)) == variables - {"datasource"}


def test_the_contracts_metrics_are_used_all_and_alone() -> None:
    used = metric_names(" ".join(expr for _, expr in EXPRESSIONS))
    rules = {rule["record"] for group in yaml.safe_load(RECORDINGS.read_text())["groups"] for rule in group["rules"]}
    used -= {part for rule in rules for part in rule.split(":")}
    assert used <= NAMES
    assert NAMES - used <= {"distill_operator_build_info"}, "a metric that no panel shows helps nobody"


@recorded
def test_every_recording_is_shown(name: str) -> None:
    assert any(name in expr for _, expr in EXPRESSIONS)


def test_every_recording_that_is_shown_is_made() -> None:
    made = {rule["record"] for group in yaml.safe_load(RECORDINGS.read_text())["groups"] for rule in group["rules"]}
    assert {name for _, expr in EXPRESSIONS for name in re.findall(r"\b\w+:\w+:\w+", expr)} <= made


@pytest.mark.parametrize(("place", "expr"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_no_panel_takes_prometheus_own_label_for_a_job(place: str, expr: str) -> None:
    assert not re.search(r"\bjob\b", expr), place
    assert JOB_LABEL in LOADED["distilljob"]["templating"]["list"][2]["name"]


def test_every_kind_of_time_and_every_phase_has_its_colour() -> None:
    def named(title: str) -> set[str]:
        panel = next(p for board in LOADED.values() for p in panels(board) if p["title"] == title)
        return {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}

    kinds = {kind.removesuffix("_seconds") for kind in Spent.model_fields}
    assert named("Where the time goes") == named("Where the time went") == kinds
    (phases,) = (p for p in panels(LOADED["distilljob"]) if p["title"] == "Phases")
    texts = [result["text"] for result in phases["fieldConfig"]["defaults"]["mappings"][0]["options"].values()]
    assert texts == list(Phase)
