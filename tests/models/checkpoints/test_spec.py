"""Model specifications."""

from pathlib import Path

import pytest

from nightshift.models.checkpoints.spec import Builtin, Directory, Hub, ModelSpec, parse_spec
from nightshift.schema.errors import ModelError
from nightshift.schema.params import EmbedderParams


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (
            "open_clip:ViT-B-32/openai",
            ModelSpec(
                library="open_clip", source=Builtin(architecture="ViT-B-32", weights="openai")
            ),
        ),
        (
            "open_clip:hf-hub:org/name",
            ModelSpec(library="open_clip", source=Hub(name="org/name")),
        ),
        ("hf:org/name.v1-x", ModelSpec(library="hf", source=Hub(name="org/name.v1-x"))),
        (
            "hf:org/name@bfloat16",
            ModelSpec(library="hf", source=Hub(name="org/name"), precision="bfloat16"),
        ),
        (
            "freeret:org/name",
            ModelSpec(library="freeret", source=Hub(name="org/name"), embedding=EmbedderParams()),
        ),
        (
            "freeret:org/name?codec=kmeans(70)+pq(448,8)&codebook=ab12",
            ModelSpec(
                library="freeret",
                source=Hub(name="org/name"),
                embedding=EmbedderParams(codec="kmeans(70)+pq(448,8)", codebook="ab12"),
            ),
        ),
        (
            "freeret:org/name?site=mlp_L-1&norm=rms&task=news@float16",
            ModelSpec(
                library="freeret",
                source=Hub(name="org/name"),
                precision="float16",
                embedding=EmbedderParams(site="mlp_L-1", norm="rms", task="news"),
            ),
        ),
    ],
)
def test_a_specification_reads_and_writes_back_the_same(text: str, spec: ModelSpec) -> None:
    assert parse_spec(text) == spec
    assert str(spec) == text


def test_weights_may_be_a_file_of_an_absolute_path(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.touch()

    parsed = parse_spec(f"open_clip:ViT-B-32/{file}")

    assert parsed.source == Builtin(architecture="ViT-B-32", weights=str(file))


@pytest.mark.parametrize("library", ["open_clip", "hf"])
@pytest.mark.parametrize("written", ["{folder}", "./model", "../{name}/model", "model", "."])
def test_a_directory_may_be_written_in_any_way_and_becomes_absolute(
    library: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.chdir(folder if written == "." else tmp_path)

    parsed = parse_spec(f"{library}:{written.format(folder=folder, name=tmp_path.name)}")

    assert parsed.source == Directory(path=folder)
    assert parse_spec(str(parsed)) == parsed


@pytest.mark.parametrize(("file", "library"), [("open_clip_config.json", "open_clip"), ("x", "hf")])
def test_a_bare_directory_is_known_by_its_files(file: str, library: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()

    assert parse_spec(str(tmp_path)).library == library


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ViT-B-32",
        "open_clip:",
        "open_clip:ViT-B-32",
        "open_clip:ViT-B-32/",
        "open_clip:/no/such/directory",
        "open_clip:ViT-B-32//no/such/file.safetensors",
        "open_clip:hf-hub:",
        "hf:",
        "hf:./no/such/directory",
        "hf:a/b/c",
        "hf:org/na me",
        "timm:vit",
    ],
)
def test_what_cannot_be_a_model_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(ModelError) as refused:
        parse_spec(text)

    assert refused.value.model == text


@pytest.mark.parametrize(
    "options",
    [
        *("site=nowhere", "sight=attn_L", "site", "max_pixels=0", "norm=l2"),
        "site=mlp_L_postnorm&norm=rms",
    ],
)
def test_options_that_freeret_does_not_have_are_refused(options: str) -> None:
    with pytest.raises(ModelError, match=r"site|sight|max_pixels|norm"):
        parse_spec(f"freeret:org/name?{options}")
