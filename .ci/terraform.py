"""The checks of .ci/terraform: `documents` (the IAM policies), `example` (the .tf files), `tables ENDPOINT BINARY`
(the example's tables against those that the binary makes on a DynamoDB at the endpoint), and `seen FOLDER` (what the
relays of the tests have called).

Every fault that is found is told, one a line; then it ends with 1.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

IAM = Path("helm/angzarr-relay/docs/iam")
IAM_PAGE = Path("helm/angzarr-relay/docs/iam.md")
EXAMPLE = Path("examples/terraform")
SOURCE = Path("src")
MAPPING = "actions.json"
PLACEHOLDERS = {"REGION": "us-east-1", "ACCOUNT": "123456789012", "PREFIX": "angzarr", "STREAM": "angzarr-orders"}
EXAMPLE_FILES = {"versions.tf", "variables.tf", "main.tf", "iam.tf", "outputs.tf"}

# The resources of the documents, as iam.md calls them. All actions that the relay needs can be limited to a resource,
# so no document needs "*"; the wildcard of a table's stream stands for a label that nobody knows before it is enabled.
TABLE_ARN = "arn:aws:dynamodb:REGION:ACCOUNT:table/PREFIX-"
RESOURCES = {
    TABLE_ARN + "events": "events",
    TABLE_ARN + "events/stream/*": "events stream",
    TABLE_ARN + "positions": "positions",
    TABLE_ARN + "snapshots": "snapshots",
    TABLE_ARN + "relay": "relay",
    "arn:aws:kinesis:REGION:ACCOUNT:stream/STREAM": "Kinesis stream",
}

faults = []


def fault(text):
    faults.append(text)


def each(value):
    return value if isinstance(value, list) else [value]


def read_json(path):
    """A JSON file; a key that is there twice is a fault, because the first would be lost silently."""

    def unique(pairs):
        names = [name for name, _ in pairs]
        for name in {name for name in names if names.count(name) > 1}:
            fault(f"{path}: the key {name!r} is there twice")
        return dict(pairs)

    try:
        return json.loads(path.read_text(), object_pairs_hook=unique)
    except (OSError, ValueError) as error:
        fault(f"{path}: {error}")
        return {}


# --- the IAM documents


def check_documents():
    mapping = read_json(IAM / MAPPING)
    documents = {path.name: read_json(path) for path in sorted(IAM.glob("*.json")) if path.name != MAPPING}
    allowed = {}
    for name, document in documents.items():
        allowed[name] = grants(name, document)
        ask_parliament(name)
    check_mapping(mapping, allowed)
    check_page(mapping, allowed)
    check_source(mapping)
    count = sum(len(granted) for granted in allowed.values())
    return f"documents: {len(documents)} allow {count} actions on resources, by {len(mapping)} operations"


def grants(name, document):
    """The pairs of action and resource that a document allows, and what is wrong with its form."""
    found = set()
    if document.get("Version") != "2012-10-17" or set(document) != {"Version", "Statement"}:
        fault(f"{name}: it must have Version 2012-10-17 and Statement, and nothing else")
    sids = [statement.get("Sid", "") for statement in each(document.get("Statement", []))]
    for sid in sids:
        if not re.fullmatch("[A-Za-z0-9]+", sid) or sids.count(sid) > 1:
            fault(f"{name}: each statement needs a Sid of its own of letters and digits, not {sid!r}")
    for statement in each(document.get("Statement", [])):
        where = f"{name} {statement.get('Sid')}"
        unknown = set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}
        if unknown or statement.get("Effect") != "Allow":
            fault(f"{where}: only Allow with Action, Resource and Condition is expected here, not {sorted(unknown)}")
        actions, resources = each(statement.get("Action", [])), each(statement.get("Resource", []))
        if actions != sorted(set(actions)):
            fault(f"{where}: the actions are not sorted, or one is there twice")
        for action in actions:
            if not re.fullmatch("[a-z0-9-]+:[A-Z][A-Za-z]+", action):
                fault(f"{where}: {action!r} is not one whole action")
        for resource in resources:
            if resource not in RESOURCES:
                fault(f"{where}: {resource!r} is none of the resources that a document may name")
        pairs = [(action, RESOURCES.get(resource, resource)) for action in actions for resource in resources]
        for pair in pairs:
            if pair in found:
                fault(f"{where}: {' on '.join(pair)} is allowed twice")
            found.add(pair)
    return found


def ask_parliament(name):
    """Lets parliament, which brings AWS' list of actions and resources, judge a document with its values filled in."""
    from parliament import analyze_policy_string

    text = (IAM / name).read_text()
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    left = re.findall(r"\b[A-Z]{4,}\b", text)
    if left:
        fault(f"{name}: {sorted(set(left))} are no placeholders that are explained")
    try:
        findings = analyze_policy_string(text).findings
    except Exception as error:  # It stops in many ways at what is no policy at all.
        findings = [error]
    for finding in findings:
        fault(f"{name}: parliament: {finding}")


def check_mapping(mapping, allowed):
    """Holds actions.json and the documents to each other: each allows what the other says, and no more."""
    explained = {name: set() for name in allowed}
    for operation, entry in mapping.items():
        if set(entry) != {"actions", "documents"} or not entry["actions"] or not entry["documents"]:
            fault(f"{MAPPING}: {operation} must have actions and documents, and nothing else")
            continue
        actions, granted_anywhere = set(entry["actions"]), set()
        for name in entry["documents"]:
            if name not in allowed:
                fault(f"{MAPPING}: {operation} names the document {name!r}, which is not there")
                continue
            granted = {action for action, _ in allowed[name]} & actions
            if not granted:
                fault(f"{MAPPING}: {operation} names {name}, which allows none of its actions")
            granted_anywhere |= granted
            explained[name] |= granted
        for action in actions - granted_anywhere:
            fault(f"{MAPPING}: {operation} needs {action}, which none of its documents allows")
    for name, granted in allowed.items():
        for action in {action for action, _ in granted} - explained[name]:
            fault(f"{name}: {action} is of no operation in {MAPPING} that names this document")


def check_page(mapping, allowed):
    """Holds the table of iam.md to the documents and to actions.json."""
    head = "| document | resource | action | operation | for |"
    lines = IAM_PAGE.read_text().splitlines()
    if head not in lines:
        fault(f"{IAM_PAGE}: the table `{head}` is not there")
        return
    shown, operations = {name: set() for name in allowed}, {}
    for line in lines[lines.index(head) + 2 :]:
        if not line.startswith("|"):
            break
        name, resources, action, named, _ = [cell.strip() for cell in line.strip("|").split("|")]
        name, action = name.strip("`"), action.strip("`")
        for resource in resources.split(", "):
            if (action, resource) in shown.setdefault(name, set()):
                fault(f"{IAM_PAGE}: {action} on {resource} is there twice for {name}")
            shown[name].add((action, resource))
        for operation in re.findall("`(.*?)`", named):
            operations.setdefault(operation, set()).add((name, action))
    for name in shown:
        for pair in sorted(shown[name] ^ allowed.get(name, set())):
            where = "not in the document" if pair in shown[name] else "missing"
            fault(f"{IAM_PAGE}: {name}: {' on '.join(pair)} is {where}")
    for operation in sorted(set(operations) | set(mapping)):
        entry = mapping.get(operation, {"actions": [], "documents": []})
        rows = operations.get(operation, set())
        names, actions = {name for name, _ in rows}, {action for _, action in rows}
        if names != set(entry["documents"]) or actions != set(entry["actions"]):
            fault(f"{IAM_PAGE}: {operation} has {sorted(rows)}, {MAPPING} says {entry}")


def check_source(mapping):
    """Holds actions.json to the operations that the source counts, and to the actions that it names in its messages."""
    counted, named = {}, {}
    label = re.compile(
        r'\boperation: "([A-Z]\w+)"'
        r'|\b(?:call|write_call|observe|record_aws_call|failed)\((?:[\w&.]+, )?"([A-Z]\w+)"'
        r'|\bconst (?:OPERATION|SCAN): &str = "([A-Z]\w+)"'
    )
    for path in sorted(SOURCE.rglob("*.rs")):
        own = path.relative_to(SOURCE).as_posix()
        # The embedded services answer calls; they make none of AWS.
        if own.startswith(("local/", "cli/local/")) or "/tests/" in own or own.endswith("tests.rs"):
            continue
        text = path.read_text().split("#[cfg(test)]\nmod ")[0]
        for groups in label.findall(text):
            counted.setdefault("".join(groups), own)
        for action in re.findall(r"\b(?:dynamodb|kinesis):[A-Z]\w+", text):
            named.setdefault(action, own)
    for operation in sorted(set(counted) - set(mapping)):
        fault(f"{SOURCE / counted[operation]}: {operation} is not in {MAPPING}: which action does it need?")
    for operation in sorted(set(mapping) - set(counted)):
        fault(f"{MAPPING}: {operation} is called nowhere in {SOURCE}")
    actions = {action for entry in mapping.values() for action in entry["actions"]}
    for action in sorted(set(named) - actions):
        fault(f"{SOURCE / named[action]}: the action {action} is in no document")


# --- the Terraform example


def parsed():
    """All .tf files as one: lists of blocks by their type."""
    import hcl2

    options = hcl2.SerializationOptions(explicit_blocks=False, strip_string_quotes=True, with_comments=False)
    blocks = {}
    for path in sorted(EXAMPLE.glob("*.tf")):
        try:
            content = hcl2.loads(path.read_text(), serialization_options=options)
        except Exception as error:  # The parser's own errors have no common base.
            fault(f"{path}: it cannot be parsed: {' '.join(str(error).split())}")
            continue
        for kind, found in content.items():
            blocks.setdefault(kind, []).extend(each(found))
    return blocks


def by_label(blocks, kind):
    """The blocks of a kind by their labels, joined with dots."""
    found = {}
    for block in blocks.get(kind, []):
        for first, rest in block.items():
            if kind in ("resource", "data"):
                found.update({f"{first}.{second}": body for second, body in rest.items()})
            else:
                found[first] = rest
    return found


def check_example():
    blocks = parsed()
    missing = EXAMPLE_FILES - {path.name for path in EXAMPLE.glob("*.tf")}
    if missing:
        fault(f"{EXAMPLE}: {sorted(missing)} are missing")
    check_references(blocks)
    documents = {path.stem for path in IAM.glob("*.json") if path.name != MAPPING}
    local = {name: value for block in blocks.get("locals", []) for name, value in block.items()}
    used = set(re.findall('"([a-z-]+)"', str(local.get("documents", ""))))
    # The tables are made by the example itself.
    for name in sorted(used ^ (documents - {"tables-create"})):
        fault(f"{EXAMPLE}: local.documents and the documents of {IAM} differ in {name!r}")
    if f'"${{path.module}}/{os.path.relpath(IAM, EXAMPLE)}/' not in (EXAMPLE / "iam.tf").read_text():
        fault(f"{EXAMPLE}/iam.tf does not read the documents of {IAM}")
    return f"example: {len(by_label(blocks, 'resource'))} resources, {len(by_label(blocks, 'variable'))} variables"


def check_references(blocks):
    """What is referred to is declared, and every variable and local is used, as far as that needs no provider."""
    text = "\n".join(path.read_text() for path in sorted(EXAMPLE.glob("*.tf")))
    local = {name for block in blocks.get("locals", []) for name in block}
    for kind, declared in (("var", set(by_label(blocks, "variable"))), ("local", local)):
        used = set(re.findall(rf"\b{kind}\.(\w+)", text))
        for name in sorted(used ^ declared):
            fault(f"{EXAMPLE}: {kind}.{name} is {'used and not declared' if name in used else 'declared and not used'}")
    for prefix, kind in (("", "resource"), (r"data\.", "data")):
        declared = set(by_label(blocks, kind))
        pattern = rf"(?<![\w.\"]){prefix}(aws_\w+\.\w+)\b"
        for name in sorted(set(re.findall(pattern, text)) - declared):
            fault(f"{EXAMPLE}: the {kind} {name} is used and not declared")
    for name, body in by_label(blocks, "variable").items():
        if not body.get("description"):
            fault(f"{EXAMPLE}: var.{name} has no description")


# --- the tables

# What a table of the example may say: more would be nothing that `tables create` does.
TABLE_ARGUMENTS = {
    "name",
    "billing_mode",
    "hash_key",
    "range_key",
    "stream_enabled",
    "stream_view_type",
    "deletion_protection_enabled",
    "attribute",
    "point_in_time_recovery",
}


def example_tables():
    """The example's tables with the variables' defaults, each as `described` has one."""
    blocks = parsed()
    defaults = {name: body.get("default") for name, body in by_label(blocks, "variable").items()}

    def value(found):
        whole = re.fullmatch(r"\$\{var\.(\w+)\}", str(found))
        if whole:
            return defaults.get(whole.group(1))
        if isinstance(found, str):
            return re.sub(r"\$\{var\.(\w+)\}", lambda match: str(defaults.get(match.group(1))), found)
        return found

    tables = {}
    for label, body in by_label(blocks, "resource").items():
        if not label.startswith("aws_dynamodb_table."):
            continue
        unknown = set(body) - TABLE_ARGUMENTS
        if unknown:
            fault(f"{label}: {sorted(unknown)} are nothing that `tables create` sets")
        recovery = [value(block.get("enabled")) for block in body.get("point_in_time_recovery", [])]
        if any(recovery):
            fault(f"{label}: point-in-time recovery is on by default; `tables create` leaves it off")
        roles = {"HASH": "hash_key", "RANGE": "range_key"}
        tables[value(body.get("name"))] = {
            "keys": {role: value(body[name]) for role, name in roles.items() if name in body},
            "attributes": {value(one["name"]): value(one["type"]) for one in body.get("attribute", [])},
            "billing_mode": value(body.get("billing_mode", "PROVISIONED")),
            "stream": value(body.get("stream_view_type")) if value(body.get("stream_enabled", False)) else None,
            "deletion_protection": value(body.get("deletion_protection_enabled", False)),
        }
    return tables


def described(table):
    """What DescribeTable says of a table, as far as the example decides it."""
    stream = table.get("StreamSpecification", {})
    return {
        "keys": {key["KeyType"]: key["AttributeName"] for key in table["KeySchema"]},
        "attributes": {one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]},
        "billing_mode": table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        "stream": stream.get("StreamViewType") if stream.get("StreamEnabled") else None,
        "deletion_protection": table.get("DeletionProtectionEnabled", False),
    }


def check_tables(endpoint, binary):
    import boto3

    os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local", AWS_EC2_METADATA_DISABLED="true")
    dynamodb = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=endpoint)

    def tables(command, prefix=""):
        """Runs `tables COMMAND` on tables of this prefix, or of the relay's own default; the JSON that it prints."""
        # An empty variable counts as not set.
        environment = dict(os.environ, DYNAMO_ENDPOINT=endpoint, AWS_REGION="us-east-1", DYNAMO_TABLE_PREFIX=prefix)
        done = subprocess.run([binary, "tables", *command], env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            said = " ".join((done.stdout + done.stderr).split())
            fault(f"`tables {' '.join(command)}` on the tables {prefix}* ended with {done.returncode}: {said}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    example = example_tables()
    prefixes = {name.rsplit("-", 1)[0] for name in example}
    if len(prefixes) != 1:
        fault(f"the tables of the example have not one prefix, but {sorted(prefixes)}")
        return ""
    (prefix,) = prefixes
    tables(["create"])
    printed = tables(["describe", "--json"])
    for name in sorted({one["table"] for one in printed} ^ set(example)):
        fault(f"{name}: {'not in' if name not in example else 'only in'} the example")
    for one in printed:
        name = one["table"]
        if name not in example:
            continue
        found = described(dynamodb.describe_table(TableName=name)["Table"])
        for part, wanted in example[name].items():
            if found[part] != wanted:
                fault(f"{name}: {part} is {wanted} in the example, and {found[part]} when `tables create` makes it")
        said = {
            "keys": {key["role"]: key["name"] for key in one["keys"]},
            "attributes": {key["name"]: key["type"] for key in one["keys"]},
            "billing_mode": one["billing_mode"],
            "stream": (one["stream"] or {}).get("view_type"),
        }
        for part, printed_part in said.items():
            if printed_part != example[name][part]:
                fault(f"{name}: {part} is {example[name][part]} in the example, `tables describe` prints {printed_part}")
    # The other way about: what the relay says of tables that were made as the example has them.
    own = "by-example"
    for name, table in example.items():
        create_table(dynamodb, name.replace(prefix, own, 1), table)
    for one in tables(["describe", "--json"], own):
        if one["differences"] or one["warnings"] or one["mend"]:
            fault(f"the example's {one['table']}: {one['differences'] + one['warnings']}, {one['mend']}")
    return f"tables: {', '.join(sorted(example))} as `tables create` makes them"


def create_table(dynamodb, name, table):
    """Makes a table as the provider would."""
    request = {
        "TableName": name,
        "KeySchema": [{"AttributeName": key, "KeyType": role} for role, key in table["keys"].items()],
        "AttributeDefinitions": [
            {"AttributeName": attribute, "AttributeType": kind} for attribute, kind in table["attributes"].items()
        ],
        "BillingMode": table["billing_mode"],
    }
    if table["stream"]:
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": table["stream"]}
    if table["billing_mode"] == "PROVISIONED":
        request["ProvisionedThroughput"] = {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}
    try:
        dynamodb.create_table(**request)
    except Exception as error:  # Whatever DynamoDB has against it.
        fault(f"the example's {name} cannot be made: {error}")


def check_seen(folder):
    """Whether the relays under test have called all that their documents allow; that they call no more, the tests see."""
    seen = {line for path in Path(folder).glob("*") for line in path.read_text().split()}
    mapping = read_json(IAM / "actions.json")
    allowed = {name for name, one in mapping.items() if {"relay.json", "kinesis.json"} & set(one["documents"])}
    for operation in sorted(allowed - seen):
        fault(f"{operation}: allowed by relay.json or kinesis.json, and no relay in the tests has called it")
    return f"seen in the metrics of the tests: all {len(allowed)} operations that the relay's documents allow"


def main():
    checks = {"documents": check_documents, "example": check_example, "tables": check_tables, "seen": check_seen}
    done = checks[sys.argv[1]](*sys.argv[2:])
    for text in faults:
        print(f"FAILED: {text}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(done)


if __name__ == "__main__":
    main()
