"""Checks of the alerts, their unit tests, the runbook and the dashboard.

    monitoring.py static                      what can be seen from the files
    monitoring.py mutate                      changes every alert in small ways: its unit tests must notice each
    monitoring.py live --binary FILE [--picture FILE]
                                              a real relay under a real Prometheus, first well, then in trouble

What the metrics are is read from the relay's source, so that a metric or label that is renamed there fails here. Each
command prints every fault it finds and ends with 1 if there is any.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import promql_parser as promql
import yaml

ROOT = Path(__file__).resolve().parent.parent
ALERTS = ROOT / "helm/angzarr-relay/files/alerts.yaml"
ALERT_TESTS = ROOT / "helm/tests/alerts.yaml"
DASHBOARD = ROOT / "helm/angzarr-relay/files/dashboard.json"
RUNBOOK = ROOT / "helm/angzarr-relay/docs/runbook.md"
SOURCE = ROOT / "src"
METRICS = SOURCE / "telemetry/metrics.rs"

RUNBOOK_URL = "https://github.com/angzarr-io/angzarr-relay/blob/main/helm/angzarr-relay/docs/runbook.md"
SEVERITIES = ("critical", "warning")

# What Prometheus and Kubernetes add to every series.
TARGET_LABELS = {"namespace", "job", "instance", "pod", "container", "service", "endpoint"}
# Series that Prometheus makes itself.
FOREIGN_METRICS = {"up": set()}
HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")

# What the dashboard asks: the one that its variable names.
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
PANELS_MIN, PANELS_MAX = 12, 18
ROWS = ["Is everything delivered?", "How late?", "Who is stuck?", "What does it cost?"]


class Faults:
    """What was found wrong."""

    def __init__(self):
        self.found = []

    def add(self, where, text):
        self.found.append(f"{where}: {text}")

    def unless(self, holds, where, text):
        if not holds:
            self.add(where, text)

    def end(self, title):
        for fault in self.found:
            print(f"WRONG  {fault}", file=sys.stderr)
        print(f"{title}: {len(self.found)} faults")
        return 1 if self.found else 0


# --- the metrics, as the source has them ------------------------------------------------------------------------------


def known_metrics():
    """Every metric of the relay: its kind and its labels, by the name it is scraped under."""
    text = METRICS.read_text()
    names = dict(re.findall(r'pub const (\w+): &str =\s*"(\w+)";', text))
    table = re.search(r"pub const METRICS\b.*?= &\[(.*?)\n\];", text, re.S).group(1)
    rows = re.findall(r'\(\s*names::(\w+),\s*(\w+),\s*Unit::\w+,\s*&\[([^\]]*)\],\s*"', table)
    metrics = {}
    for constant, kind, labels in rows:
        labels = set(re.findall(r'"(\w+)"', labels))
        name = names[constant]
        if kind == "Histogram":
            for suffix in HISTOGRAM_SUFFIXES:
                metrics[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
        else:
            metrics[name] = labels
    if len(rows) != len(names) or not rows:
        raise SystemExit(f"{METRICS}: {len(names)} names and {len(rows)} rows of the table were understood")
    return metrics


def source_texts():
    """Every string literal of the source, tests left out: the values that labels can have are among them."""
    texts = set()
    for file in SOURCE.rglob("*.rs"):
        if "test" in file.name or "tests" in file.parts:
            continue
        body = file.read_text().split("#[cfg(test)]\nmod tests {")[0]
        texts.update(re.findall(r'"([\w-]+)"', body))
    return texts


# --- PromQL -----------------------------------------------------------------------------------------------------------


def children(node):
    match node:
        case promql.AggregateExpr():
            return [child for child in (node.expr, node.param) if child is not None]
        case promql.BinaryExpr():
            return [node.lhs, node.rhs]
        case promql.Call():
            return list(node.args)
        case promql.MatrixSelector():
            return [node.vector_selector]
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return [node.expr]
        case promql.VectorSelector() | promql.NumberLiteral() | promql.StringLiteral():
            return []
    raise SystemExit(f"an expression of a kind that is not known here: {type(node).__name__}")


def selectors(node):
    if isinstance(node, promql.VectorSelector):
        yield node
    for child in children(node):
        yield from selectors(child)


def labels_below(node, metrics):
    """All labels that the series of an expression may have."""
    found = set(TARGET_LABELS)
    for selector in selectors(node):
        found |= metrics.get(selector.name, FOREIGN_METRICS.get(selector.name, set()))
    return found


def label_lists(node, metrics):
    """Every list of labels in an expression (by, on, group_left), with those that may stand there."""
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql.AggregateExpr) and modifier is not None:
        yield modifier.labels, labels_below(node.expr, metrics)
    if isinstance(node, promql.BinaryExpr) and modifier is not None:
        both = labels_below(node.lhs, metrics) & labels_below(node.rhs, metrics)
        if modifier.matching is not None:
            yield modifier.matching.labels, both
        if modifier.group_labels is not None:
            yield modifier.group_labels, labels_below(node, metrics)
    for child in children(node):
        yield from label_lists(child, metrics)


def check_expression(expression, where, metrics, values, faults):
    """That an expression parses, and that all it names exists. Answers it parsed, or nothing."""
    try:
        node = promql.parse(expression)
    except ValueError as error:
        faults.add(where, f"does not parse: {error}")
        return None
    for selector in selectors(node):
        name = selector.name
        if name not in metrics and name not in FOREIGN_METRICS:
            faults.add(where, f"there is no metric {name}")
            continue
        labels = metrics.get(name, set()) | TARGET_LABELS
        for matcher in selector.matchers.matchers:
            faults.unless(matcher.name in labels, where, f"{name} has no label {matcher.name}")
            if matcher.name in TARGET_LABELS or matcher.value == ".*":
                continue
            for value in matcher.value.split("|"):
                faults.unless(value in values, where, f"no {matcher.name} of {name} is ever {value!r}")
    for labels, allowed in label_lists(node, metrics):
        for label in set(labels) - allowed:
            faults.add(where, f"is grouped by {label}, which none of its metrics has")
    return node


# --- alerts, tests, runbook -------------------------------------------------------------------------------------------


def read_alerts():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def read_tests():
    return yaml.safe_load(ALERT_TESTS.read_text())


def runbook_headings():
    return re.findall(r"^#{2,3} (.+)$", RUNBOOK.read_text(), re.M)


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check_alerts(metrics, values, faults):
    anchors = {anchor(heading) for heading in runbook_headings()}
    names = [rule.get("alert", "?") for rule in read_alerts()]
    for rule in read_alerts():
        name = rule.get("alert", "?")
        annotations = rule.get("annotations", {})
        faults.unless(names.count(name) == 1, name, "stands here twice")
        faults.unless(re.fullmatch(r"AngzarrRelay[A-Z]\w+", name), name, "is not called AngzarrRelay..")
        faults.unless(rule.get("for"), name, "has no `for`")
        faults.unless(rule.get("labels", {}).get("severity") in SEVERITIES, name, f"severity is none of {SEVERITIES}")
        for annotation in ("summary", "description"):
            faults.unless(annotations.get(annotation, "").strip(), name, f"has no {annotation}")
        summary = annotations.get("summary", "")
        faults.unless("$labels.job" in summary, name, "the summary does not say of which relay")
        link, _, part = annotations.get("runbook_url", "").partition("#")
        faults.unless(link == RUNBOOK_URL, name, f"the runbook's address is not {RUNBOOK_URL}")
        faults.unless(part == name.lower(), name, "the link is not to this alert's section")
        faults.unless(part in anchors, name, f"the runbook has no section #{part}")
        node = check_expression(rule["expr"], name, metrics, values, faults)
        if node is None:
            continue
        below = labels_below(node, metrics)
        for text in annotations.values():
            for label in re.findall(r"\$labels\.(\w+)", text):
                faults.unless(label in below, name, f"tells of the label {label}, which its metrics lack")
    for heading in runbook_headings():
        if heading.startswith("Angzarr"):
            faults.unless(heading in names, "runbook", f"has a section for {heading}, which is no alert")
    for target in re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text()):
        faults.unless(target in anchors, "runbook", f"links to #{target}, which is no section of it")
    panels = {panel["title"] for panel in json.loads(DASHBOARD.read_text())["panels"]}
    for file in (RUNBOOK, ALERTS):
        for title in re.findall(r'"([A-Z][^"\n]*\?)"', file.read_text()):
            faults.unless(title in panels, file.name, f"names the panel {title!r}, which the dashboard lacks")


def check_alert_tests(faults):
    firing, silent = set(), set()
    for group in read_tests()["tests"]:
        for case in group["alert_rule_test"]:
            (firing if case.get("exp_alerts") else silent).add(case["alertname"])
            for expected in case.get("exp_alerts") or []:
                where = f"{ALERT_TESTS.name}, {group['name']}"
                faults.unless("severity" in expected.get("exp_labels", {}), where, "expects no severity")
                given = set(expected.get("exp_annotations", {}))
                faults.unless(given >= {"summary", "description", "runbook_url"}, where, "expects not all annotations")
    names = {rule["alert"] for rule in read_alerts()}
    for name in sorted(names):
        faults.unless(name in firing, name, "no unit test makes it fire")
        faults.unless(name in silent, name, "no unit test keeps it silent")
    for name in sorted((firing | silent) - names):
        faults.add(ALERT_TESTS.name, f"tests {name}, which is no alert")


def commands_named():
    """The relay's commands that alerts, runbook and dashboard name: words, and the options among them."""
    found = set()
    for file in (RUNBOOK, ALERTS, DASHBOARD):
        text = re.sub(r"\s+", " ", file.read_text())
        spans = re.findall(r"`(angzarr-relay [^`]*)`", text)
        spans += re.findall(r"-- (angzarr-relay [^`]*?) ```", text)
        found.update(spans)
    return sorted(found)


def check_commands(binary, faults):
    """That every command named exists, takes the options named and as many arguments."""
    named = commands_named()
    faults.unless(len(named) > 10, "runbook", "names hardly any command: the search for them is at fault")
    for command in named:
        command = re.sub(r"\{\{[^}]*\}\}", "HANDLER", command)
        words = command.split()[1:]
        plain = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        answer = subprocess.run([binary, *plain, "--help"], capture_output=True, text=True)
        if answer.returncode != 0:
            faults.add("runbook", f"`{command}`: the relay has no such command")
            continue
        for option in (word for word in words if word.startswith("--")):
            faults.unless(re.search(rf"{option}\b", answer.stdout), "runbook", f"`{command}`: there is no {option}")
        usage = re.sub(r" --[\w-]+ <\w+>", "", re.search(r"Usage: (.*)", answer.stdout).group(1))
        valued = {words[at + 1] for at, word in enumerate(words[:-1]) if re.search(rf"{word} <", answer.stdout)}
        arguments = [word for word in words if word.isupper() and word not in valued]
        least, most = usage.count(" <"), usage.count(" <") + len(re.findall(r" \[[A-Z]+\]", usage))
        if "<COMMAND>" in usage:
            faults.add("runbook", f"`{command}`: lacks a word: {usage}")
        elif re.search(rf"{' '.join(plain)}$", command) is None or arguments:
            faults.unless(least <= len(arguments) <= most, "runbook", f"`{command}`: has not the arguments of {usage}")


# --- dashboard --------------------------------------------------------------------------------------------------------


def read_dashboard():
    return json.loads(DASHBOARD.read_text())


def data_panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def variables(dashboard):
    """What each variable stands for when nothing is chosen."""
    standing = {}
    for variable in dashboard["templating"]["list"]:
        if variable.get("includeAll"):
            standing[variable["name"]] = variable["allValue"]
        elif variable["type"] == "textbox":
            standing[variable["name"]] = variable["query"]
    return standing


def substituted(expression, dashboard, rate_interval, time_range):
    """A query as Grafana sends it."""
    standing = {"__rate_interval": rate_interval, "__range": time_range, **variables(dashboard)}
    return re.sub(r"\$(\w+)", lambda found: standing.get(found.group(1), found.group(0)), expression)


def lost_keys(before, after, path="dashboard"):
    """What of a document is not, or not the same, in another."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost_keys(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after)):
            yield from lost_keys(one, other, f"{path}[{at}]")
    elif before != after:
        yield path


def check_dashboard_model(dashboard, faults):
    """That Grafana's own model keeps all of it, and that the units are Grafana's."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.builders.dashboard import Dashboard as Builder
    from grafana_foundation_sdk.models import units
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    after = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    for path in lost_keys(dashboard, after):
        faults.add(path, "is not kept by Grafana's model of a dashboard")
    newest = Builder("any").build().schema_version
    found = dashboard["schemaVersion"]
    faults.unless(found == newest, "dashboard", f"schemaVersion is {found}, the model's is {newest}")
    known = {value for name, value in vars(units).items() if name.isupper() or isinstance(value, str)}
    for panel in data_panels(dashboard):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        faults.unless(unit in known, panel["title"], f"the unit {unit!r} is none of Grafana's")


def check_layout(dashboard, faults):
    taken, ids = {}, set()
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    faults.unless(rows == ROWS, "dashboard", f"its rows are {rows}")
    count = len(data_panels(dashboard))
    faults.unless(PANELS_MIN <= count <= PANELS_MAX, "dashboard", f"has {count} panels")
    above = -1
    for panel in dashboard["panels"]:
        place, title = panel["gridPos"], panel["title"]
        faults.unless(panel["id"] not in ids, title, "has the id of another panel")
        ids.add(panel["id"])
        faults.unless(place["x"] + place["w"] <= 24, title, "is wider than the grid")
        faults.unless(place["y"] >= above, title, "does not stand in reading order")
        above = place["y"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), title)
                faults.unless(other == title, title, f"lies on {other}")


def check_panel(panel, dashboard, metrics, values, faults):
    title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
    faults.unless(panel.get("description", "").strip(), title, "has no description")
    faults.unless(defaults.get("unit"), title, "has no unit")
    faults.unless(defaults.get("thresholds", {}).get("steps"), title, "has no thresholds")
    faults.unless(panel["datasource"] == DATASOURCE, title, "does not use the variable of the data source")
    for target in panel["targets"]:
        where = f"{title} {target['refId']}"
        faults.unless(target["datasource"] == DATASOURCE, where, "does not use the variable of the data source")
        expression = substituted(target["expr"], dashboard, "1m", "3h")
        faults.unless("$" not in expression, where, "has a variable that the dashboard lacks")
        node = check_expression(expression, where, metrics, values, faults)
        if node is None:
            continue
        for selector in selectors(promql.parse(expression)):
            chosen = {matcher.name for matcher in selector.matchers.matchers}
            wanted = {"namespace", "job"} | ({"handler"} & metrics.get(selector.name, set()))
            missing = wanted - chosen
            faults.unless(not missing, where, f"{selector.name} does not follow the variables {sorted(missing)}")
        shown = result_labels(node, metrics)
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            faults.unless(label in shown, where, f"the legend shows {label}, which the result has not")


def result_labels(node, metrics):
    """The labels of what an expression answers, for the kinds of expression that the dashboard has."""
    match node:
        case promql.AggregateExpr():
            return set(node.modifier.labels) if node.modifier is not None else set()
        case promql.BinaryExpr():
            if isinstance(node.lhs, promql.NumberLiteral):
                return result_labels(node.rhs, metrics)
            return result_labels(node.lhs, metrics)
        case promql.ParenExpr():
            return result_labels(node.expr, metrics)
        case promql.Call() if node.func.name == "histogram_quantile":
            return result_labels(node.args[1], metrics) - {"le"}
    return labels_below(node, metrics)


def check_variables(dashboard, metrics, values, faults):
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    wanted = ["datasource", "namespace", "job", "handler"]
    faults.unless(names[:4] == wanted, "dashboard", f"its variables are {names}")
    for variable in dashboard["templating"]["list"]:
        asks_it = variable["type"] != "query" or variable["datasource"] == DATASOURCE
        faults.unless(asks_it, f"variable {variable['name']}", "does not use the variable of the data source")
    for name, metric, label in variable_queries(dashboard):
        node = check_expression(metric, f"variable {name}", metrics, values, faults)
        if node is not None:
            known = labels_below(node, metrics)
            faults.unless(label in known, f"variable {name}", f"there is no label {label}")


def variable_queries(dashboard):
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        query = substituted(variable["query"]["query"], dashboard, "1m", "3h")
        metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
        yield variable["name"], metric, label


def check_dashboard(metrics, values, faults):
    dashboard = read_dashboard()
    check_dashboard_model(dashboard, faults)
    check_layout(dashboard, faults)
    check_variables(dashboard, metrics, values, faults)
    for panel in data_panels(dashboard):
        check_panel(panel, dashboard, metrics, values, faults)


def static(_arguments):
    faults, metrics, values = Faults(), known_metrics(), source_texts()
    check_alerts(metrics, values, faults)
    check_alert_tests(faults)
    check_dashboard(metrics, values, faults)
    return faults.end(f"{len(read_alerts())} alerts, {len(data_panels(read_dashboard()))} panels")


# --- mutations of the alerts ------------------------------------------------------------------------------------------

SWAPPED = {"max by": "min by", "min by": "max by", "sum by": "min by"}


def mutations(rule):
    """An alert, changed in one small way each time, with what was changed."""
    expression = rule["expr"]

    def replaced(found, by):
        return expression[: found.start()] + by + expression[found.end() :]

    # A threshold that lies aside: by a tenth, or by one where it is a small count.
    for found in re.finditer(r"(?<=[<>] )[\d.]+(?=$|\s)", expression, re.M):
        number = float(found.group())
        aside = 1 if number == int(number) and number < 10 else number / 10
        for other in (number - aside, number + aside):
            yield f"threshold {number:g} to {other:g}", {**rule, "expr": replaced(found, f"{other:.10g}")}
    for found in re.finditer(r"(?<=== )[01]\b", expression):
        yield f"== {found.group()} turned", {**rule, "expr": replaced(found, str(1 - int(found.group())))}
    for found in re.finditer(r"^\s*\d+ \*", expression, re.M):
        number = float(found.group().split()[0])
        for factor in (0.9, 1.1):
            yield f"factor {number:g} to {number * factor:g}", {**rule, "expr": replaced(found, f"{number * factor} *")}
    for found in re.finditer(r"\{[^}]*\}", expression):
        yield f"without {found.group()}", {**rule, "expr": replaced(found, "")}
    for found in re.finditer("|".join(SWAPPED), expression):
        swapped = SWAPPED[found.group()]
        yield f"{found.group()} to {swapped}, at {found.start()}", {**rule, "expr": replaced(found, swapped)}
    for found in re.finditer(r"^(\s*)unless.*\n.*$", expression, re.M):
        changed = {**rule, "expr": replaced(found, "")}
        try:
            promql.parse(changed["expr"])
        except ValueError:
            continue
        yield f"without `{' '.join(found.group().split())}`", changed
    # How far an alert looks back where it matters; a mean over a longer time is no other alert.
    for found in re.finditer(r"(?<=_over_time\()[^\[]*\[\d+[mhd]\]", expression):
        shorter = re.sub(r"\[\d+[mhd]\]", "[2m]", found.group())
        yield f"looks back [2m] only, at {found.start()}", {**rule, "expr": replaced(found, shorter)}
    # The tests go in steps of a minute.
    minutes = int(promql.parse_duration(rule["for"]).total_seconds()) // 60
    for other in (minutes - 1, minutes + 1):
        yield f"for {minutes}m to {other}m", {**rule, "for": f"{other}m"}


def outcome_of(folder, number, rule):
    """What an alert's unit tests say to it: that they pass, that they fail, or what else went wrong."""
    rules, tests = folder / f"rules-{number}.yaml", folder / f"tests-{number}.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "mutated", "rules": [rule]}]}))
    groups = []
    for group in read_tests()["tests"]:
        cases = [case for case in group["alert_rule_test"] if case["alertname"] == rule["alert"]]
        if cases:
            groups.append({**group, "alert_rule_test": cases})
    document = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": groups}
    tests.write_text(yaml.safe_dump(document))
    answer = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True)
    if answer.returncode == 0:
        return PASS
    said = answer.stdout + answer.stderr
    # Only a comparison that failed counts: an expression that cannot be evaluated shows nothing of the tests.
    return FAIL if "got:[" in said else said


PASS, FAIL = "pass", "fail"


def mutate(arguments):
    faults, changes = Faults(), []
    wanted = re.compile(arguments.only)
    with tempfile.TemporaryDirectory(prefix="angzarr-monitoring-") as folder:
        folder = Path(folder)
        alerts = [rule for rule in read_alerts() if wanted.search(rule["alert"])]
        for rule in alerts:
            # As they are they must pass, or the rest shows nothing.
            faults.unless(outcome_of(folder, "as-is", rule) == PASS, rule["alert"], "its unit tests fail as it is")
            changes += [(rule["alert"], what, changed) for what, changed in mutations(rule)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = pool.map(lambda job: outcome_of(folder, job[0], job[1][2]), enumerate(changes))
            for (name, what, _), outcome in zip(changes, outcomes):
                faults.unless(outcome != PASS, name, f"no unit test notices: {what}")
                faults.unless(outcome in (PASS, FAIL), name, f"cannot be evaluated: {what}: {outcome}")
    return faults.end(f"{len(changes)} changes of {len(alerts)} alerts")


# --- the live run -----------------------------------------------------------------------------------------------------

JOB, NAMESPACE = "angzarr-relay", "demo"
# The handler whose receiver is this program.
HANDLER = "orders-search"
SCRAPE_SECS = 1
# Scrapes that are waited for before it is judged whether all is well.
WELL_SCRAPES = 40
RATE_INTERVAL = "15s"

RELAY_CONFIG = """
[storage.dynamo]
region = "us-east-1"

[relay]
poll_interval_max = "250ms"
shutdown_grace = "5s"

[telemetry]
listen = "127.0.0.1:0"
admin_listen = "off"
log_level = "warn,dynoxide=off"

[[handlers]]
name = "orders-stream"
kind = "sink"
subscribe = [{{ domain = "orders" }}]
kinesis = {{ stream = "angzarr-orders" }}

[[handlers]]
name = "orders-audit"
kind = "projector"
subscribe = [{{ domain = "*" }}]
jsonl = {{ path = "orders-audit.jsonl" }}

[[handlers]]
name = "orders-view"
kind = "projector"
subscribe = [{{ domain = "orders", types = ["Order*"] }}]

[[handlers]]
name = "{handler}"
kind = "projector"
subscribe = [{{ domain = "orders" }}]
retry = {{ initial = "100ms", max = "1s" }}
http = {{ url = "{url}" }}
"""

PROMETHEUS_CONFIG = """
global:
  scrape_interval: {scrape}s
  evaluation_interval: {scrape}s
rule_files: ["{rules}"]
scrape_configs:
  - job_name: {job}
    static_configs:
      - targets: ["{target}"]
        labels: {{namespace: {namespace}}}
"""

# Queries that may answer nothing while all is well, and why, by panel and legend. {TROUBLE} marks those that must
# answer something once there was trouble.
TROUBLE = "there was no trouble yet"
EMPTY_WHEN_WELL = {
    ("How many events are not accepted?", "{{handler}}: {{outcome}}"): TROUBLE,
    ("Which AWS calls do not succeed?", "{{operation}}: {{outcome}}"): "no call failed, and no condition was refused",
    ("How often do leases change hands?", "handed over"): "a lone replica hands nothing over",
    ("How often do leases change hands?", "lost"): "a lone replica has nobody to lose a lease to",
    ("How often do leases change hands?", "replicas declared dead"): "there is no other replica",
}

# Metrics that are not there from the start, because what they count has not happened.
NOT_AT_FIRST = {
    "angzarr_relay_leases_released_total",
    "angzarr_relay_leases_lost_total",
    "angzarr_relay_members_declared_dead_total",
    "angzarr_relay_renewals_missed_total",
    "angzarr_relay_memberships_lost_total",
}

# What a relay that has little to do, and no trouble, stays below: an alert on a gauge that grows by itself would ring
# for ever.
WELL_BELOW = {
    "max(angzarr_relay_handler_lag_seconds)": 15,
    "max(angzarr_relay_checkpoint_age_seconds)": 30,
    "max(angzarr_relay_shards{state=\"unread\"})": 1,
    "86400 - min(angzarr_relay_safety_clock_seconds)": 15,
}


class Failed(Exception):
    """Something that was waited for did not come."""


def wait_for(what, condition, limit=60):
    """Waits until a condition answers something true, and answers that."""
    until, seen = time.monotonic() + limit, None
    while time.monotonic() < until:
        try:
            seen = condition()
        except (OSError, urllib.error.URLError) as error:
            seen = None
            last = error
        else:
            last = seen
        if seen:
            return seen
        time.sleep(0.2)
    raise Failed(f"{what}: not within {limit} s; last seen: {last!r}")


class Receiver:
    """An HTTP service that takes events, or does not, as it is told."""

    def __init__(self):
        receiver = self
        self.answers = "all"
        self.refused_root = None
        self.taken = 0

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.status(json.loads(body)["subject"]))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/events"

    def status(self, root):
        self.taken += 1
        if self.answers == "down":
            return 401
        if self.answers == "busy" and self.taken % 2:
            return 429
        if self.answers == "picky":
            # The first root that comes is the one it does not like.
            self.refused_root = self.refused_root or root
            if root == self.refused_root:
                return 400
        return 200


class Stage:
    """The processes of the live run, and the questions put to them."""

    def __init__(self, binary, folder):
        self.folder = folder
        self.processes = []
        # A copy: the build may replace it meanwhile.
        self.binary = shutil.copy2(binary, folder / "angzarr-relay")
        self.receiver = Receiver()
        self.config = folder / "relay.toml"
        self.config.write_text(RELAY_CONFIG.format(handler=HANDLER, url=self.receiver.url))

    def start(self, name, *command):
        output = open(self.folder / f"{name}.log", "w")
        process = subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT)
        self.processes.append((name, process))
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def check_alive(self):
        for name, process in self.processes:
            if process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode}:\n{self.log(name)[-2000:]}")

    def start_relay(self):
        self.relay = self.start("relay", self.binary, "local", "--config", self.config)

        def address(what):
            self.check_alive()
            found = re.search(rf"^\s*{what}\s+(http://[\w.:]+)", self.log("relay"), re.M)
            return found and found.group(1)

        self.metrics_url = wait_for("the relay's address of metrics", lambda: address("metrics"))
        self.dynamo = wait_for("the relay's address of DynamoDB", lambda: address("DynamoDB"))
        wait_for("the relay is ready", lambda: fetch(f"{self.metrics_url}/readyz") is not None)

    def start_prometheus(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        file = self.folder / "prometheus.yaml"
        target = self.metrics_url.removeprefix("http://")
        named = {"scrape": SCRAPE_SECS, "rules": ALERTS, "job": JOB, "target": target, "namespace": NAMESPACE}
        file.write_text(PROMETHEUS_CONFIG.format(**named))
        self.prometheus_url = f"http://127.0.0.1:{port}"
        self.start(
            "prometheus",
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={self.folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        )

        def ready():
            self.check_alive()
            return fetch(f"{self.prometheus_url}/-/ready") is not None

        wait_for("Prometheus is ready", ready)

    def stop_all(self):
        for _, process in self.processes:
            if process.poll() is None:
                process.terminate()
        for _, process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.receiver.server.shutdown()

    def ask(self, path, **parameters):
        """Asks Prometheus."""
        answer = json.loads(fetch(f"{self.prometheus_url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        if answer["status"] != "success":
            raise Failed(f"{path} {parameters}: {answer}")
        return answer["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def number(self, expression):
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def alerts(self):
        """The alerts that are pending or fire, each with the handler it is about."""
        active = self.ask("alerts")["alerts"]
        return {(alert["labels"]["alertname"], alert["labels"].get("handler")) for alert in active}

    def command(self, *words):
        """Runs one of the relay's commands as an operator does."""
        environment = {**os.environ, "DYNAMO_ENDPOINT": self.dynamo}
        words = [self.binary, *words, "--config", self.config]
        answer = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        return answer.returncode, answer.stdout + answer.stderr


def fetch(url):
    """What a URL answers; nothing when it answers an error."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        if "/api/v1/" in url:
            raise Failed(f"{url}: {error.read().decode()}") from error
        return None


def check_exposition(stage, metrics, faults):
    """What Prometheus' own tool says of the metrics, and whether all are there."""
    text = fetch(f"{stage.metrics_url}/metrics")
    answer = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    said = answer.stdout + answer.stderr
    faults.unless(answer.returncode == 0 and not said, "promtool check metrics", said.strip() or "failed")
    exposed = set(re.findall(r"^(\w+)", re.sub(r"^#.*$", "", text, flags=re.M), re.M))
    for name in sorted(set(metrics) - exposed - NOT_AT_FIRST):
        faults.add("/metrics", f"{name} is in {METRICS.name} and not exposed")
    for name in sorted(exposed - set(metrics)):
        faults.add("/metrics", f"{name} is exposed and not in {METRICS.name}")


def check_rules(stage, faults):
    rules = [rule for group in stage.ask("rules")["groups"] for rule in group["rules"]]
    faults.unless(len(rules) == len(read_alerts()), "Prometheus", f"has loaded {len(rules)} rules")
    for rule in rules:
        said = rule.get("lastError", "")
        faults.unless(rule["health"] == "ok", rule["name"], f"is not evaluated: {rule['health']} {said}")


def empty_queries(stage, dashboard, time_range):
    """The queries that answer nothing, by panel and legend."""
    for panel in data_panels(dashboard):
        for target in panel["targets"]:
            expression = substituted(target["expr"], dashboard, RATE_INTERVAL, time_range)
            # A number that is none is no answer either: it is what 0 divided by 0 makes.
            values = [series["value"][1] for series in stage.query(expression)]
            if all(value == "NaN" for value in values):
                yield panel["title"], target["legendFormat"]


def check_queries(stage, dashboard, allowed, faults):
    wait_for("a query's first answer", lambda: stage.query("up"))
    for title, legend in empty_queries(stage, dashboard, "1h"):
        faults.unless((title, legend) in allowed, title, f"the query of {legend!r} answers nothing")
    for name, metric, label in variable_queries(dashboard):
        values = {series.get(label) for series in stage.ask("series", **{"match[]": metric})}
        faults.unless(values - {None}, f"variable {name}", "has no value")


def check_well(stage, metrics, dashboard, scrapes, faults):
    def scraped():
        stage.check_alive()
        return (stage.number(f'count_over_time(up{{job="{JOB}"}}[1h])') or 0) >= scrapes

    wait_for(f"{scrapes} scrapes", scraped, limit=30 + 3 * scrapes * SCRAPE_SECS)
    check_exposition(stage, metrics, faults)
    check_rules(stage, faults)
    check_queries(stage, dashboard, EMPTY_WHEN_WELL, faults)
    for name, handler in sorted(stage.alerts(), key=str):
        faults.add(name, f"rings or is about to, for {handler}, while all is well")
    for expression, bound in WELL_BELOW.items():
        value = stage.number(expression)
        below = value is not None and value < bound
        faults.unless(below, expression, f"is {value} while all is well, not below {bound}")


def trouble(stage, faults, pause_scrapes):
    """Makes trouble, waits for the alert that is to tell of it, mends it as the runbook says, waits for the end."""

    def comes(alert, handler=HANDLER):
        wait_for(f"{alert} is about to ring", lambda: stage.check_alive() or (alert, handler) in stage.alerts())

    def goes(alert, handler=HANDLER):
        wait_for(f"{alert} ends", lambda: stage.check_alive() or (alert, handler) not in stage.alerts())

    def stays():
        """Lets what is seen go on for some scrapes: for the picture."""
        before = stage.number(f'count_over_time(up{{job="{JOB}"}}[1h])')
        after = lambda: stage.number(f'count_over_time(up{{job="{JOB}"}}[1h])') >= before + pause_scrapes
        wait_for("scrapes of the trouble", after, limit=60 + 3 * pause_scrapes)

    def runs(*words):
        status, said = stage.command(*words)
        faults.unless(status == 0, f"angzarr-relay {' '.join(words)}", said)
        return said

    stage.receiver.answers = "down"
    comes("AngzarrRelayHandlerDown")
    stays()
    stage.receiver.answers = "all"
    goes("AngzarrRelayHandlerDown")
    stays()

    stage.receiver.answers = "picky"
    comes("AngzarrRelayRootsParked")
    stays()
    stage.receiver.answers = "all"
    said = runs("parked", "list", "--handler", HANDLER)
    root = stage.receiver.refused_root
    faults.unless(root in said, "parked list", f"does not show the root {root}:\n{said}")
    runs("parked", "show", HANDLER, "orders", root)
    runs("parked", "release", HANDLER, "orders", root)
    goes("AngzarrRelayRootsParked")

    # No alert: among all that was accepted before, this is too little.
    stage.receiver.answers = "busy"
    delivered = f'angzarr_relay_events_delivered_total{{handler="{HANDLER}", outcome="throttled"}}'
    put_off = f"rate({delivered}[{RATE_INTERVAL}]) > 0"
    wait_for("events are put off", lambda: stage.query(put_off))
    stays()
    stage.receiver.answers = "all"

    runs("pause", HANDLER)
    comes("AngzarrRelayHandlerPaused")
    stays()
    faults.unless("paused" in runs("status"), "status", "does not show that the handler is paused")
    runs("resume", HANDLER)
    goes("AngzarrRelayHandlerPaused")
    stays()


def check_end(stage, faults):
    """Stops the relay: its absence is noticed."""
    stage.relay.terminate()
    status = stage.relay.wait(30)
    faults.unless(status == 0, "relay", f"ended with {status}:\n{stage.log('relay')[-2000:]}")
    for alert in ("AngzarrRelayNoData", "AngzarrRelayReplicaNotScraped"):
        noticed = lambda alert=alert: alert in {name for name, _ in stage.alerts()}
        wait_for(f"{alert} is about to ring", noticed)


def live(arguments):
    binary = Path(arguments.binary)
    if not binary.is_file():
        raise SystemExit(f"there is no relay at {binary}: build it, or name it in ANGZARR_RELAY_BINARY")
    faults, metrics, dashboard = Faults(), known_metrics(), read_dashboard()
    drawn = arguments.picture is not None
    with tempfile.TemporaryDirectory(prefix="angzarr-monitoring-") as folder:
        stage = Stage(binary, Path(folder))
        try:
            check_commands(stage.binary, faults)
            stage.start_relay()
            stage.start_prometheus()
            check_well(stage, metrics, dashboard, WELL_SCRAPES * (3 if drawn else 1), faults)
            trouble(stage, faults, 15 if drawn else 0)
            still_allowed = {key for key, reason in EMPTY_WHEN_WELL.items() if reason != TROUBLE}
            check_queries(stage, dashboard, still_allowed, faults)
            check_rules(stage, faults)
            if drawn:
                draw(stage, dashboard, Path(arguments.picture))
            check_end(stage, faults)
        except Failed as failure:
            faults.add("live", str(failure))
        finally:
            stage.stop_all()
    return faults.end("live")


# --- the picture ------------------------------------------------------------------------------------------------------

INCHES_WIDE, INCHES_A_ROW, INCHES_OF_HEADING, DOTS_AN_INCH = 14.0, 0.30, 0.35, 90
HEADING = (
    "angzarr-relay local: one replica, ten events a second, written by the same process. The receiver of orders-search "
    "is down, refuses a root, and asks to come later, one after the other; then the handler is paused."
)
LEGEND_LINES_MAX = 2
COLOURS = {"green": "#2f8f4e", "orange": "#e08a00", "red": "#c8312b", "blue": "#2f6fd0"}


def written(value, unit):
    """A number as the dashboard writes it, about."""
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
            if abs(value) >= 2 * size or size == 1 <= abs(value):
                return f"{value / size:.3g} {name}"
        return f"{value * 1000:.3g} ms" if value else "0 s"
    if unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:.0f} B"
    if unit == "currencyUSD":
        return f"${value:,.2f}"
    suffix = {"eps": " events/s", "ops": " /s", "cps": " /s", "cpm": " /min"}.get(unit, "")
    return f"{value:.3g}{suffix}"


def mapped(value, mappings):
    for mapping in mappings:
        options = mapping["options"]
        if mapping["type"] == "value" and f"{value:g}" in options:
            return options[f"{value:g}"]["text"]
        if mapping["type"] == "range" and options["from"] <= value <= options["to"]:
            return options["result"]["text"]
    return None


def colour_at(value, thresholds):
    steps = thresholds["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]]


def legend_of(target, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found.group(1), ""), target["legendFormat"])


def draw_stat(axes, panel, answers):
    """answers: (name, value)."""
    defaults = panel["fieldConfig"]["defaults"]
    axes.axis("off")
    shown = answers or [("", None)]
    across = min(len(shown), 4 if panel["gridPos"]["w"] > 8 else 2)
    down = -(-len(shown) // across)
    for at, (name, value) in enumerate(shown):
        x, y = (at % across + 0.5) / across, 1 - (at // across + 0.5) / down
        if value is None:
            axes.text(x, y, "No data", ha="center", va="center", fontsize=11, color="#777777")
            continue
        text = mapped(value, defaults.get("mappings", [])) or written(value, defaults["unit"])
        colour = colour_at(value, defaults["thresholds"])
        axes.text(x, y + 0.05, text, ha="center", va="bottom", fontsize=15, color=colour, weight="bold")
        axes.text(x, y - 0.02, name, ha="center", va="top", fontsize=8, color="#444444")


def draw_series(axes, panel, answers):
    """answers: (name, times, values)."""
    defaults = panel["fieldConfig"]["defaults"]
    answers = sorted(answers, key=lambda answer: -max(answer[2]))
    if not answers:
        axes.text(0.5, 0.5, "No data", ha="center", va="center", transform=axes.transAxes, color="#777777")
    if defaults["custom"]["stacking"]["mode"] == "normal" and answers:
        axes.stackplot(answers[0][1], *[values for _, _, values in answers], labels=[name for name, _, _ in answers])
    else:
        for name, times, values in answers:
            axes.plot(times, values, linewidth=1, label=name)
    top = max((max(values) for _, _, values in answers), default=1) or 1
    axes.set_ylim(0, top * 1.15)
    for step in defaults["thresholds"]["steps"][1:]:
        if step["value"] <= top * 1.15:
            axes.axhline(step["value"], color=COLOURS[step["color"]], linewidth=0.8, linestyle="--")
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: written(value, defaults["unit"]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.tick_params(labelsize=6.5, length=2, colors="#444444")
    axes.grid(color="#e8e8e8", linewidth=0.6)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    columns = 4 if panel["gridPos"]["w"] > 10 else 2
    most = columns * LEGEND_LINES_MAX
    if len(names) > most:
        names = [*names[: most - 1], f"{names[most - 1]} (and {len(names) - most} more)"]
        handles = handles[:most]
    if names:
        style = {"fontsize": 6, "frameon": False, "handlelength": 1.2, "columnspacing": 1.2, "borderaxespad": 0}
        below = 0.2 / (axes.get_position().height * axes.figure.get_figheight())
        axes.legend(handles, names, loc="upper left", bbox_to_anchor=(-0.02, -below), ncols=columns, **style)


def answers_of(stage, dashboard, panel, since, now):
    """What a panel's queries answer, named by their legends."""
    found = []
    for target in panel["targets"]:
        expression = substituted(target["expr"], dashboard, RATE_INTERVAL, f"{int(now - since)}s")
        if panel["type"] == "stat":
            for series in stage.query(expression):
                found.append((legend_of(target, series["metric"]), float(series["value"][1])))
            continue
        for series in stage.ask("query_range", query=expression, start=since, end=now, step=2)["result"]:
            points = [(float(time), float(value)) for time, value in series["values"] if value != "NaN"]
            if points:
                times = [(time - since) / 60 for time, _ in points]
                found.append((legend_of(target, series["metric"]), times, [value for _, value in points]))
    return found


def draw(stage, dashboard, file):
    """Draws the dashboard with what its queries answer now, laid out as its grid."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle
    from PIL import Image

    now = time.time()
    scrapes = stage.number(f'count_over_time(up{{job="{JOB}"}}[1h])')
    since = now - scrapes * SCRAPE_SECS
    down = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    grid_high = down * INCHES_A_ROW
    high = grid_high + INCHES_OF_HEADING
    figure = pyplot.figure(figsize=(INCHES_WIDE, high), facecolor="#f4f5f7")

    def box(place, left=0.0, right=0.0, above=0.0, below=0.0):
        """A panel's place in the figure, with margins in inches."""
        x0, x1 = place["x"] / 24 * INCHES_WIDE + left, (place["x"] + place["w"]) / 24 * INCHES_WIDE - right
        y0 = grid_high - (place["y"] + place["h"]) * INCHES_A_ROW + below
        y1 = grid_high - place["y"] * INCHES_A_ROW - above
        return x0 / INCHES_WIDE, y0 / high, (x1 - x0) / INCHES_WIDE, (y1 - y0) / high

    figure.text(0.006, 1 - INCHES_OF_HEADING / 2 / high, HEADING, va="center", fontsize=8.5, color="#444444")
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y, width, height = box(place, 0.04, 0.04, 0.03, 0.03)
        if panel["type"] == "row":
            figure.text(x + 0.003, y + height / 2, panel["title"], va="center", fontsize=10.5, weight="bold")
            continue
        paint = {"facecolor": "white", "edgecolor": "#d8dade", "transform": figure.transFigure, "zorder": -1}
        figure.add_artist(Rectangle((x, y), width, height, **paint))
        figure.text(x + 0.006, y + height - 0.09 / high, panel["title"], va="top", fontsize=8.5, weight="bold")
        answers = answers_of(stage, dashboard, panel, since, now)
        if panel["type"] == "stat":
            draw_stat(figure.add_axes(box(place, 0.1, 0.1, 0.38, 0.1)), panel, answers)
        else:
            axes = figure.add_axes(box(place, 0.75, 0.2, 0.38, 0.55))
            axes.set_xlim(0, (now - since) / 60)
            draw_series(axes, panel, answers)
    figure.savefig(stage.folder / "drawn.png", dpi=DOTS_AN_INCH, facecolor=figure.get_facecolor())
    # Few colours are enough, and make it small.
    Image.open(stage.folder / "drawn.png").convert("RGB").quantize(128).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size // 1024} KiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("static").set_defaults(run=static)
    mutating = commands.add_parser("mutate")
    mutating.add_argument("--only", default="", metavar="REGEX", help="alerts of these names")
    mutating.set_defaults(run=mutate)
    living = commands.add_parser("live")
    living.add_argument("--binary", required=True, metavar="FILE", help="the relay, with the feature `local`")
    living.add_argument("--picture", metavar="FILE", help="draw the dashboard as it then is")
    living.set_defaults(run=live)
    arguments = parser.parse_args()
    # What was started is stopped, however this ends.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
