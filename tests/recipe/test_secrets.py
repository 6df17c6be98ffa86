"""Secrets by their names and shapes: no recipe holds one, no message shows one."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aft_ray import cli
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.secrets import has_secret, redacted
from aft_ray.store.quarantine import quarantined_sample

WORD = "Ab3" * 16  # no real token, and no scanner of this repository takes it for one
SHAPES = {
    "PEM": f"-----BEGIN RSA PRIVATE KEY-----\n{WORD}\n-----END RSA PRIVATE KEY-----",
    "PEM cut off": f"-----BEGIN PRIVATE KEY-----\n{WORD}",
    "OpenSSH": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{WORD}\n-----END OPENSSH PRIVATE KEY-----",
    "JWT": f"eyJ{WORD}.eyJ{WORD}.{WORD}",
    "OpenAI": f"sk-{WORD}",
    "OpenAI project": f"sk-proj-{WORD[:10]}-{WORD[:12]}_{WORD}",
    "Anthropic": f"sk-ant-api03-{WORD}",
    "Stripe": f"sk_live_{WORD}",
    "Slack": f"xoxb-123456789012-{WORD}",
    "GitLab": f"glpat-{WORD[:20]}",
    "GitHub fine-grained": f"github_pat_{WORD}",
    "GitHub": f"ghp_{WORD[:36]}",
    "Google": f"AIza{WORD[:35]}",
    "AWS": "AKIA" + "ABCDEFGH12345678",
    "Hugging Face": f"hf_{WORD[:34]}",
    "URL": f"https://me:{WORD}@host/path",
    "URL, slash in the password": f"s3://me:{WORD}/x@bucket/path",
    "URL, no user": f"redis://:{WORD}@host:6379",
    "signature": f"https://host/w.pth?X-Amz-Signature={WORD}",
    "SAS": f"https://host/w.pth?sv=1&sig={WORD}",
    "connection string": f"AccountName=a;AccountKey={WORD}==;Suffix=x",
    "header": f"Authorization: Bearer {WORD}",
}
NAMES = (
    "password", "passwd", "token", "secret", "account_key", "api_key", "apiKey", "AccountKey", "api-key", "hf_token",
    "aws_secret_access_key", "client_secret", "private_key", "auth_token", "access_token", "db.password", "PASSWORD",
)  # fmt: skip
HARMLESS = (
    "s3://bucket/a:b?endpoint_override=127.0.0.1:9000&scheme=http",
    "https://host:8080/models@main/x",
    "http://[::1]:8265/a@b",
    "see http://127.0.0.1:8265, mail a@b.org",
    "hf-hub:timm/vit_base_patch16_224.augreg_in1k@0123456789abcdef0123456789abcdef01234567",
    "sk-learn-digits-2024-run",
    "task-force-12345678901234567890",
    "Premise: {premise}\nHypothesis: {hypothesis}? token=",
    "Token: {text}",
    "a basic introduction to 2024-01-01",
)
MODEL_OPTIONS = {"pad_token": "[PAD]", "max_tokens": 12, "num_tokens": "8", "use_token": True, "token": None, "keys": "a,b",
                 "tokenizer": "bert", "secret": "", "hf_token": "$HF_TOKEN", "image_token": "<image>"}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    plain = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}
    return Recipe.model_validate(plain | changes)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_is_refused_in_a_recipe_and_shown_nowhere(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = SHAPES[kind]
    assert WORD[:12] not in redacted(f"before {secret} after") and "before " in redacted(f"before {secret}")
    assert redacted(redacted(secret)) == redacted(secret) and not has_secret(redacted(secret))
    assert WORD[:12] not in str(InputError(f"Cannot read {secret}."))
    path = tmp_path / "recipe.yaml"
    path.write_text("workspace: w\ndataset: {name: mnist5k}\nstudent: {model: 'tiny:cnn'}\nruns: 1\n")
    for override in (f"student.weights={secret}", f"workspace={secret}", f"run={secret}", secret, f"{secret}=1"):
        assert cli.main(["train", str(path), override]) == 2
        found = capsys.readouterr()
        assert WORD[:12] not in found.out + found.err and "Unknown key 'runs'" in found.err
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_known_by_the_name_of_its_key(name: str) -> None:
    assert redacted({"a": [{name: "hunter2"}]}) == {"a": [{name: "***"}]}
    assert "hunter2" not in redacted(f"got { ({name: 'hunter2'})!r}") and "hunter2" not in redacted(f"x {name}=hunter2")
    options: list[dict[str, Any]] = [
        {"teachers": [{"model": "mine:Net", "options": {"inside": {name: "hunter2"}}}]},
        {"regularizer": {"name": "aft", name: "hunter2"}},
        {"search": {"space": {"regularizer.options": [{name: "hunter2"}]}}},
    ]
    for changes in options:
        with pytest.raises(ValueError, match="must not hold a secret"):
            recipe(**changes)


def test_what_is_no_secret_is_taken() -> None:
    for text in HARMLESS:
        assert redacted(text) == text
    options = recipe(teachers=[{"model": "mine:Net", "options": MODEL_OPTIONS}]).teachers[0].options
    assert options == MODEL_OPTIONS


def test_messages_logs_and_lists_show_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WORD not in quarantined_sample("a", OSError(f"no https://me:{WORD}@host/a.png"))["reason"]

    def fail(parsed: argparse.Namespace) -> None:
        raise OSError(28, f"no room at https://me:{WORD}@host")

    monkeypatch.setattr("aft_ray.commands.list.run", fail)
    assert cli.main(["list", "students"]) == 1
    assert "https://me:***@host" in capsys.readouterr().err


def test_logs_and_tracebacks_show_no_secret() -> None:
    code = (
        "from aft_ray.commands.environment import report_without_secrets; report_without_secrets(); import logging\n"
        "logging.getLogger('a').warning('at %s', 'https://me:hunter' + '2@host')\n"
        "raise RuntimeError('https://me:hunter' + '2@host')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "WARNING a: at https://me:***@host" in done.stderr
    assert "RuntimeError: https://me:***@host" in done.stderr and "Traceback" in done.stderr


def test_submit_does_not_show_the_password_of_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("workspace: /w\ndataset: {name: mnist5k}\nstudent: {model: 'tiny:cnn'}\n")
    assert cli.main(["submit", "train", str(path), "--address", "http://me:hunter2@127.0.0.1:9"]) == 2
    assert "http://me:***@127.0.0.1:9" in capsys.readouterr().err


def test_a_fault_is_one_line_without_a_terminal_s_commands() -> None:
    assert InputError("a\x1b[2Jb\nc\u202ed").faults == ["a\\x1b[2Jb\\nc\\u202ed"]
