"""The Dockerfile, compose.yaml and .env.example: what they name exists, and what they start starts."""

import json
import re
import urllib.error
import urllib.request
from importlib.metadata import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from inftythink.cli.serve import ServeConfig
from tests.serve.places import FakeServer
from tests.serve.test_cli import Process
from tests.servers import in_thread

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments; continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def last(name: str) -> str:
    return [rest for each, rest in instructions() if each == name][-1]


IMAGE = json.loads(last("CMD"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
EXAMPLE = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.M))
HEALTH = re.search(r"http://[\d.:]+/\w+", last("HEALTHCHECK"))[0]


def flag(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_the_image_is_made_of_files_that_are_let_in():
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert ignored[0] == "*"
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert "!" + source in ignored


def test_the_image_has_parts_of_the_package_that_exist_and_its_user_is_not_root():
    extras = metadata("inftythink").get_all("Provides-Extra")
    named = re.findall(r"EXTRAS=([\w,]+)", (ROOT / "Dockerfile").read_text("utf-8"))
    assert {part for each in named for part in each.split(",")} <= set(extras)
    assert json.loads(last("ENTRYPOINT")) == ["inftythink"]
    assert re.search(rf"useradd .*{last('USER')}$", last("RUN"))
    assert urlsplit(HEALTH).port == int(last("EXPOSE")) == ServeConfig().port


@pytest.mark.parametrize("command", [IMAGE, SERVICES["inftythink"]["command"]], ids=["image", "compose"])
def test_the_server_starts_with_these_commands_and_its_health_is_seen(command, monkeypatch):
    assert command[0] == "serve"
    with in_thread(FakeServer("vllm")) as fake:
        arguments = [fake.url if "://" in each else each for each in command[1:]]
        arguments += [] if "--upstream" in arguments else ["--upstream", fake.url]
        monkeypatch.setenv(flag(command, "--key-env"), "secret")
        with Process(*arguments) as served:
            port = urlsplit(served.url).port
            (_, code) = re.search(r'"(-c)", "(.*)"\]', last("HEALTHCHECK")).groups()
            patient = code.replace(":8080/", f":{port}/").replace("timeout=4", "timeout=200")
            exec(compile(patient, "HEALTHCHECK", "exec"), {})
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models")
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": "Bearer secret"}
            )
            assert urllib.request.urlopen(asked).status == 200


def test_what_one_service_says_of_another_is_so():
    ours = SERVICES["inftythink"]
    assert flag(ours["command"], "--key-env") in ours["environment"]
    assert (ROOT / ours["build"] / "Dockerfile").exists()
    model = urlsplit(flag(ours["command"], "--upstream"))
    models = [name for name, each in SERVICES.items() if model.hostname in aliases(each)]
    assert set(ours["depends_on"]) == set(models)
    for name in models:
        assert flag(SERVICES[name]["command"], "--port") == str(model.port)
        assert f":{model.port}/health" in " ".join(SERVICES[name]["healthcheck"]["test"])
    page = SERVICES["open-webui"]
    assert urlsplit(page["environment"]["OPENAI_API_BASE_URL"]).netloc == f"inftythink:{last('EXPOSE')}"
    assert set(page["depends_on"]) == {"inftythink"}  # the image has its health check
    used = {volume.split(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def aliases(service: dict) -> list[str]:
    networks = service.get("networks") or {}
    return [alias for network in networks.values() for alias in network["aliases"]]


def test_the_example_of_settings_has_those_that_are_read_and_profiles_that_exist():
    read = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text("utf-8")))
    assert set(EXAMPLE) == read | {"COMPOSE_PROFILES"}
    profiles = {profile for each in SERVICES.values() for profile in each.get("profiles", [])}
    shown = re.findall(r"^#?COMPOSE_PROFILES=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.M)
    assert {profile for each in shown for profile in each.split(",")} == profiles
    assert all(EXAMPLE[name] == default for name, default in defaults())


def defaults() -> list[tuple[str, str]]:
    return re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "compose.yaml").read_text("utf-8"))
