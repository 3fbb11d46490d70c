"""Chat templates: found wherever a checkpoint keeps them, the same text, and within bounds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from nightshift.models.checkpoints.describe import describe_scorer
from nightshift.models.engine.chat_template import render_chat
from nightshift.models.families import qwen2_5_vl
from nightshift.schema.errors import ModelError
from nightshift.schema.params import ScorerParams
from tests.models.tiny_families import save_family

MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Zwölf <b>?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
]


@pytest.fixture
def folder(qwen_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen_folder, tmp_path / "model"))


def _turn(folder: Path) -> Any:
    facts = describe_scorer(f"hf:{folder}@float32", ScorerParams())
    return qwen2_5_vl.load(facts, torch.device("meta")).turn


def _in_tokenizer_config(folder: Path, template: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))


@pytest.mark.parametrize("where", ["text", "named", "json", "additional"])
def test_a_template_is_used_wherever_it_is_kept(folder: Path, where: str) -> None:
    expected = _turn(folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    if where == "text":
        _in_tokenizer_config(folder, template)
    elif where == "named":
        other = {"name": "tool_use", "template": "{{ 'tools' }}"}
        _in_tokenizer_config(folder, [other, {"name": "default", "template": template}])
    elif where == "json":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    else:
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "default.jinja").write_text(template)
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 'tools' }}")

    assert _turn(folder) == expected


def test_a_template_of_the_checkpoints_own_goes_before_that_of_its_tokenizer(folder: Path) -> None:
    expected = _turn(folder)
    _in_tokenizer_config(folder, "{{ 'another' }}")

    assert _turn(folder) == expected


@pytest.mark.parametrize("matters", [True, False])
def test_a_template_among_others_is_part_of_the_fingerprint_once_it_is_used(
    folder: Path, *, matters: bool
) -> None:
    if matters:
        (folder / "chat_template.jinja").unlink()
    (folder / "additional_chat_templates").mkdir()
    file = folder / "additional_chat_templates" / "default.jinja"
    file.write_text("{{ 'one' }}")
    before = describe_scorer(f"hf:{folder}@float32", ScorerParams()).fingerprint
    file.write_text("{{ 'two' }}")

    after = describe_scorer(f"hf:{folder}@float32", ScorerParams()).fingerprint

    assert (before != after) == matters


def test_several_templates_without_a_default_are_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    _in_tokenizer_config(folder, [{"name": "rag", "template": "{{ 1 }}"}])

    with pytest.raises(ModelError, match=r"\(rag\) and none of them is named default"):
        _turn(folder)


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for message in messages %}\n    {{ message | tojson(indent=2) }}\n{% endfor %}",
        (
            "{{ bos_token }}{% for m in messages %}{% if loop.last %}{% break %}{% endif %}"
            "{{ m['role'] | upper }}{% endfor %}{{ eos_token }}"
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
            "{% generation %}  {{ ns.n }} {% endgeneration %}{% endfor %}{{ tools is none }}"
        ),
        "{{ dict(a=1) }}{{ strftime_now('%Y') }}{{ add_generation_prompt }}{{ documents }}",
    ],
)
@pytest.mark.parametrize("prompt", [True, False])
def test_it_says_what_transformers_makes_of_it(
    qwen_folder: Path, template: str | None, *, prompt: bool
) -> None:
    processor = AutoProcessor.from_pretrained(qwen_folder)
    if template is not None:
        processor.chat_template = template

    said = render_chat(processor, MESSAGES, "it", add_generation_prompt=prompt)

    assert said == processor.apply_chat_template(MESSAGES, add_generation_prompt=prompt)


@pytest.mark.parametrize("family", ["smolvlm", "gemma3"])
def test_so_it_does_for_other_families(family: str, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(save_family(family, tmp_path / family))

    said = render_chat(processor, MESSAGES[:1], "it", add_generation_prompt=True)

    assert said == processor.apply_chat_template(MESSAGES[:1], add_generation_prompt=True)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "processor time or memory",
        ),
        ("{{ 'ab' * 10**10 }}", "memory"),
        ("{{ 'x' | center(10**9) }}", "memory"),
        ("{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x=n.x~n.x %}{% endfor %}",
         "memory"),
        ("{% for i in range(99999) %}{{ 'abcdefghijklmnop' }}{% endfor %}", "characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ raise_exception('not for you') }}", "not for you"),
        ("{% if", "unexpected|expected"),
    ],
)  # fmt: skip
def test_a_hostile_template_is_an_error_of_the_model(
    qwen_folder: Path, template: str, said: str
) -> None:
    processor = AutoProcessor.from_pretrained(qwen_folder)
    processor.chat_template = template

    with pytest.raises(ModelError, match=f"it has no usable chat template: .*({said})"):
        render_chat(processor, MESSAGES, "it", add_generation_prompt=True)
