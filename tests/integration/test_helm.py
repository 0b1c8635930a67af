"""The chart renders to objects that Kubernetes takes, and that keep our rules."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from consumer.bootstrap import NEED_SPEECH
from consumer.settings import Settings
from consumer.settings_reference import effective
from tests.servers.helm_tools import Helm, Kubeconform, RenderError

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "whisperx-consumer"
ROLES = ("intake", "coordinate", "plan", "transcribe", "assemble", "cleanup")
EVERYTHING: dict[str, Any] = {
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "topics": {"create": True},
    "models": {"existingClaim": "models"},
    "certificates": {"secret": "tls"},
    "priorityClassName": "batch",
    "podAnnotations": {"a.example/b": "c"},
    "podLabels": {"team": "speech"},
    "metrics": {"service": {"annotations": {"a.example/b": "c"}}},
    "networkPolicy": {
        "enabled": True,
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 9000}]}],
    },
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "settings": {
        "models": {"allowed": ["large-v3", "tiny"], "directory": "/models"},
        "chunks": {"max_bytes": 500_000_000},
        "kafka": {"extra": {"client.rack": 'a"b'}},
    },
    "secretEnv": {"WHISPERX_SENTRY__DSN": {"name": "sentry", "key": "dsn"}},
    "roles": {
        "transcribe": {
            "nodeSelector": {"gpu": "h100"},
            "runtimeClassName": "nvidia",
            "settings": {"worker": {"grace_s": 200.5}},
            "secretEnv": {"WHISPERX_KAFKA__SSL_KEY_PASSWORD": {"name": "transcribe", "key": "password"}},
            "certificatesSecret": "tls-transcribe",
            "affinity": {"nodeAffinity": {}},
        }
    },
}


@pytest.fixture
def render(helm: Helm, tmp_path: Path) -> Any:
    """Renders the chart with these values to objects by kind and name."""

    def rendered(values: dict[str, Any], kubernetes: str = "1.37.0") -> dict[tuple[str, str], dict[str, Any]]:
        text = helm.template(CHART, "--kube-version", kubernetes, "--values", values_file(tmp_path, values))
        objects = [found for found in yaml.safe_load_all(text) if found]
        return {
            (found["kind"], found["metadata"]["name"].removeprefix("test-whisperx-consumer")): found
            for found in objects
        }

    return rendered


def values_file(folder: Path, values: dict[str, Any]) -> str:
    path = folder / "values.json"
    path.write_text(json.dumps(values))
    return str(path)


def pod_of(found: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: pod_of(found) for (kind, name), found in objects.items() if kind in ("Deployment", "Job")}


def variables(objects: dict[tuple[str, str], dict[str, Any]], pod: dict[str, Any]) -> dict[str, str]:
    """What the container's environment will be, as far as it is written down."""
    (container,) = pod["containers"]
    shared = objects["ConfigMap", ""]["data"] if "envFrom" in container else {}
    return shared | {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def test_helm_has_nothing_to_remark(helm: Helm, tmp_path: Path) -> None:
    helm.lint(CHART)
    helm.lint(CHART, "--values", values_file(tmp_path, EVERYTHING))


@pytest.mark.parametrize("kubernetes", ["1.25.0", "1.31.0", "1.37.0"])
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_takes_every_object(
    helm: Helm, kubeconform: Kubeconform, tmp_path: Path, values: dict[str, Any], kubernetes: str
) -> None:
    text = helm.template(CHART, "--kube-version", kubernetes, "--values", values_file(tmp_path, values))
    conformity = kubeconform.check(text, kubernetes)
    assert conformity.problems == ()
    assert conformity.skipped == 0
    assert conformity.valid == 2 * len(ROLES) + 3 + (2 if values else 0)  # config map, account, service; job, network


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_no_pod_has_more_rights_than_it_needs(render: Any, values: dict[str, Any]) -> None:
    """More than Pod Security's profile "restricted" asks for."""
    for name, pod in pods(render(values)).items():
        (container,) = pod["containers"]
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "initContainers"}, name
        kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
        assert kinds <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}, name
        assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume), name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/var/cache/whisperx", "/tmp"}, name  # noqa: S108


def test_a_closed_network_lets_in_questions_about_metrics_and_out_what_is_named(render: Any) -> None:
    policy = (objects := render(EVERYTHING))["NetworkPolicy", ""]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (inwards,) = policy["ingress"]
    assert (inwards["ports"], inwards["from"]) == (
        [{"protocol": "TCP", "port": 9108}],
        EVERYTHING["networkPolicy"]["metricsFrom"],
    )
    names, *outwards = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert names["to"] == [{"namespaceSelector": {}}]
    assert outwards == EVERYTHING["networkPolicy"]["egress"]

    chosen = policy["podSelector"]
    (expression,) = chosen["matchExpressions"]
    labels = {
        name: found["spec"]["template"]["metadata"]["labels"] for (_, name), found in objects.items() if is_pod(found)
    }
    assert len(labels) == len(ROLES) + 1
    for name, has in labels.items():
        assert chosen["matchLabels"].items() <= has.items(), name
        assert has[expression["key"]] in expression["values"], name


def is_pod(found: dict[str, Any]) -> bool:
    return found["kind"] in ("Deployment", "Job")


def test_a_closed_network_without_a_way_out_is_refused(render: Any) -> None:
    with pytest.raises(RenderError, match=r"networkPolicy\.egress is empty"):
        render({"networkPolicy": {"enabled": True}})
    with pytest.raises(RenderError, match="to"):  # such a rule would let out to everywhere
        render({"networkPolicy": {"enabled": True, "egress": [{"ports": [{"port": 443}]}]}})


def test_each_role_has_a_deployment_that_runs_it_and_never_surges(render: Any) -> None:
    objects = render({})
    for role in ROLES:
        deployment = objects["Deployment", f"-{role}"]
        assert pod_of(deployment)["containers"][0]["args"] == ["run", "--roles", role]
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
        assert objects["PodDisruptionBudget", f"-{role}"]["spec"]["maxUnavailable"] == 1


def test_only_transcribing_takes_a_gpu(render: Any) -> None:
    with_gpu = [name for name, pod in pods(render({})).items() if "nvidia.com/gpu" in json.dumps(pod["containers"])]
    assert with_gpu == ["-transcribe"]


def test_a_pod_gets_half_a_minute_more_than_its_work(render: Any) -> None:
    found = pods(render(EVERYTHING))
    assert found["-plan"]["terminationGracePeriodSeconds"] == 60 + 30
    assert found["-transcribe"]["terminationGracePeriodSeconds"] == 201 + 30


def test_probes_ask_health_and_give_models_time_to_load(render: Any) -> None:
    container = pods(render({"probes": {"startupSeconds": 301, "livenessSeconds": 25}}))["-transcribe"]["containers"][0]
    startup, liveness, readiness = (container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness"))
    assert [probe["httpGet"]["path"] for probe in (startup, liveness, readiness)] == ["/healthz", "/healthz", "/readyz"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 305
    assert liveness["periodSeconds"] * liveness["failureThreshold"] == 30


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_program_takes_every_variable_that_the_chart_sets(
    render: Any, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = render(values)
    known = effective(Settings())
    for name, pod in pods(objects).items():
        environment = {k: v for k, v in variables(objects, pod).items() if k.startswith("WHISPERX_")}
        assert environment.keys() <= known.keys(), name
        with monkeypatch.context() as patched:
            for variable, value in environment.items():
                patched.setenv(variable, value)
            Settings()


def test_values_of_every_type_reach_the_program_unchanged(render: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(EVERYTHING)
    for variable, value in variables(objects, pods(objects)["-transcribe"]).items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert settings.models.allowed == ("large-v3", "tiny")
    assert settings.models.directory == Path("/models")
    assert settings.chunks.max_bytes == 500_000_000
    assert settings.kafka.extra == {"client.rack": 'a"b'}
    assert settings.worker.grace_s == 200.5


def test_secrets_come_by_reference_only(render: Any) -> None:
    objects = render(EVERYTHING)
    assert not [kind for kind, _ in objects if kind == "Secret"]
    for name, pod in pods(objects).items():
        referred = {entry["name"] for entry in pod["containers"][0]["env"] if "valueFrom" in entry}
        own = {"WHISPERX_KAFKA__SSL_KEY_PASSWORD"} if name == "-transcribe" else set()
        common = {"WHISPERX_STORE__ACCESS_KEY", "WHISPERX_STORE__SECRET_KEY", "WHISPERX_SENTRY__DSN"}
        assert own <= referred <= common | own, name


def test_a_pod_gets_the_secrets_that_it_has_a_use_for(render: Any) -> None:
    secret = {name for name, field in _settings().items() if field is SecretStr}
    objects = render({"topics": {"create": True}, "secretEnv": {name: {"name": "s", "key": "k"} for name in secret}})
    store = {f"WHISPERX_STORE__{name}" for name in ("ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN")}
    token = {"WHISPERX_MODELS__HUB_TOKEN"}
    needless = {"-intake": store | token, "-coordinate": token, "-cleanup": token}
    needless["-create-topics"] = store | token | {"WHISPERX_REGISTRY__PASSWORD", "WHISPERX_SENTRY__DSN"}
    for name, pod in pods(objects).items():
        referred = {entry["name"] for entry in pod["containers"][0]["env"] if "valueFrom" in entry}
        assert secret - referred == needless.get(name, set()), name


def _settings() -> dict[str, Any]:
    """The type of each setting by its variable."""
    return {
        f"WHISPERX_{group}__{name}".upper(): field.annotation
        for group, info in Settings.model_fields.items()
        for name, field in cast("type[BaseModel]", info.annotation).model_fields.items()
    }


def test_who_asks_the_store_nothing_has_a_key_to_it_only_where_it_is_given_one(render: Any) -> None:
    given = {"WHISPERX_STORE__ACCESS_KEY": {"name": "intake", "key": "access-key"}}
    (container,) = pods(render({"roles": {"intake": {"secretEnv": given}}}))["-intake"]["containers"]
    assert {one["name"] for one in container["env"] if "STORE" in one["name"]} == given.keys()


def test_no_secret_of_ours_can_be_written_into_the_values() -> None:
    """The settings that the schema takes are those that are no secret, and no others."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    secret = {name for name, kind in _settings().items() if kind is SecretStr}
    groups = schema["definitions"]["settingNames"]["properties"]
    taken = {f"WHISPERX_{group}__{name}".upper() for group, known in groups.items() for name in known["properties"]}
    assert taken == _settings().keys() - secret
    variables = re.compile(schema["properties"]["extraEnv"]["items"]["not"]["properties"]["name"]["pattern"])
    assert {name for name in _settings() if variables.search(name)} == secret


def test_names_that_look_like_numbers_stay_names(helm: Helm, kubeconform: Kubeconform, tmp_path: Path) -> None:
    values = {
        "image": {"tag": "2024", "pullSecrets": ["2024"]},
        "cache": {"sizeLimit": "2024"},
        "priorityClassName": "2024",
        "topics": {"create": True},
        "roles": {"transcribe": {"runtimeClassName": "2024"}},
    }
    text = helm.template(CHART, "--kube-version", "1.37.0", "--values", values_file(tmp_path, values), release="2024")
    assert kubeconform.check(text).problems == ()


def test_a_value_cannot_add_to_the_object_around_it(render: Any) -> None:
    pod = pods(render({"cache": {"sizeLimit": "1Gi}, hostPath: {path: /"}}))["-plan"]
    assert [list(volume) for volume in pod["volumes"]] == [["name", "emptyDir"], ["name", "emptyDir"]]


def test_doctor_is_asked_in_a_pod_with_room_for_the_models_libraries(render: Any) -> None:
    """It loads them to name the device: more than a small role may take, whose process would then be ended."""
    notes = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (role,) = re.findall(r"-(\w+) -- whisperx-consumer doctor", notes)
    (container,) = pods(render({}))[f"-{role}"]["containers"]
    assert role in NEED_SPEECH
    assert container["resources"]["limits"]["memory"].endswith("Gi")


def test_each_role_can_have_a_login_of_its_own(render: Any) -> None:
    def own(name: str) -> dict[str, Any]:
        return {
            "settings": {"kafka": {"sasl_username": f"whisperx-{name}"}},
            "secretEnv": {"WHISPERX_KAFKA__SASL_PASSWORD": {"name": name, "key": "password"}},
            "certificatesSecret": f"tls-{name}",
        }

    common = {"WHISPERX_KAFKA__SASL_PASSWORD": {"name": "everybody", "key": "password"}}
    roles = {name: own(name) for name in ("plan", "intake")}
    values = {"secretEnv": common, "roles": roles, "topics": {"create": True, **own("operator")}}
    found = pods(objects := render({**values, "certificates": {"secret": "tls"}}))
    logins = {"-plan": "plan", "-intake": "intake", "-create-topics": "operator", "-assemble": "everybody"}
    for name, login in logins.items():
        (container,) = found[name]["containers"]
        (password,) = [one for one in container["env"] if one["name"] == "WHISPERX_KAFKA__SASL_PASSWORD"]
        assert password["valueFrom"]["secretKeyRef"]["name"] == login
        user = variables(objects, found[name]).get("WHISPERX_KAFKA__SASL_USERNAME")
        assert user == (None if login == "everybody" else f"whisperx-{login}")
        (volume,) = [one for one in found[name]["volumes"] if one["name"] == "certificates"]
        assert volume["secret"]["secretName"] == ("tls" if login == "everybody" else f"tls-{login}")
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "certificates"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/etc/whisperx/certificates", True)


def test_without_certificates_nothing_is_mounted_for_them(render: Any) -> None:
    for name, pod in pods(render({})).items():
        assert "certificates" not in {volume["name"] for volume in pod["volumes"]}, name


def test_other_settings_restart_the_pods(render: Any) -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = render(values)["Deployment", "-plan"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum({}) != checksum({"settings": {"log": {"level": "DEBUG"}}})


def test_a_role_that_is_off_leaves_nothing_behind(render: Any) -> None:
    objects = render({"roles": {"transcribe": {"enabled": False}}})
    assert not [name for _, name in objects if "transcribe" in name]


def test_coordinators_beyond_their_partitions_are_refused(render: Any) -> None:
    with pytest.raises(RenderError, match=r"roles\.coordinate\.replicas is 9"):
        render({"roles": {"coordinate": {"replicas": 9}}})
    render({"roles": {"coordinate": {"replicas": 9}}, "settings": {"topics": {"state_partitions": 16}}})


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2},
        {"roles": {"plan": {"replicas": "many"}}},
        {"roles": {"other": {}}},
        {"image": {"digest": "latest"}},
        {"settings": {"store": {"secret_key": "a secret in values"}}},
        {"settings": {"kafka": {"oauth_client_secret": "a secret in values"}}},
        {"roles": {"plan": {"settings": {"kafka": {"ssl_key_password": "a secret in values"}}}}},
        {"roles": {"plan": {"secretEnv": {"WHISPERX_KAFKA__SASL_PASSWORD": "a secret in values"}}}},
        {"settings": {"registry": {"password": "a secret in values"}}},
        {"settings": {"store": {"sse_c_key": "a secret in values"}}},
        {"settings": {"kafka": {"extra": {"sasl.password": "a secret in values"}}}},
        {"settings": {"registry": {"url": "https://user:secret@registry:8081"}}},
        {"extraEnv": [{"name": "WHISPERX_STORE__SECRET_KEY", "value": "a secret in values"}]},
        {"settings": {"server": {"port": 1}}},
        {"secretEnv": {"WHISPERX_SENTRY__DSN": "https://key@sentry.example/1"}},
    ],
)
def test_values_that_cannot_be_meant_are_refused(render: Any, values: dict[str, Any]) -> None:
    with pytest.raises(RenderError):
        render(values)


@pytest.mark.parametrize("path", ["settings", "topics.settings", "roles.plan.settings"])
@pytest.mark.parametrize("setting", ["kafka.bootstrap_srvers", "kafak.bootstrap_servers", "kafka.Bootstrap_Servers"])
def test_a_setting_that_there_is_not_is_refused_by_name(helm: Helm, path: str, setting: str) -> None:
    wrong = "kafak" if setting.startswith("kafak") else setting.partition(".")[2]
    with pytest.raises(RenderError, match=wrong):
        helm.template(CHART, "--kube-version", "1.37.0", "--set", f"{path}.{setting}=kafka:9092")


def test_every_setting_that_is_no_secret_can_be_given(render: Any) -> None:
    values: dict[str, Any] = {}
    for name, shown in effective(Settings()).items():
        group, _, key = name.removeprefix("WHISPERX_").lower().partition("__")
        if _settings()[name] is not SecretStr and shown is not None and name != "WHISPERX_SERVER__PORT":
            values.setdefault(group, {})[key] = shown
    assert render({"settings": values})


def test_kubeconform_would_find_a_misspelt_field(kubeconform: Kubeconform, render: Any) -> None:
    deployment = render({})["Deployment", "-plan"]
    pod_of(deployment)["containers"][0]["livenesProbe"] = {}
    assert len(kubeconform.check(yaml.safe_dump(deployment)).problems) == 1


def test_the_readme_has_a_row_for_every_value_as_it_is() -> None:
    """If not: python helm/values_table.py helm/whisperx-consumer."""
    tool = load(ROOT / "helm" / "values_table.py")
    assert (CHART / "README.md").read_text(encoding="utf-8") == tool.readme_with_table(CHART)


def test_every_value_is_documented() -> None:
    tool = load(ROOT / "helm" / "values_table.py")
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    paths = {path for path, _ in tool.documented(text)}
    assert [
        path for path in leaves(yaml.safe_load(text)) if not any(path[: len(known)] == known for known in paths)
    ] == []


def leaves(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(values, dict) or not values:
        return [path]
    return [leaf for name, value in values.items() for leaf in leaves(value, (*path, name))]


def load(path: Path) -> ModuleType:
    """The chart's tools are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
