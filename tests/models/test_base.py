"""Finding, checking and pinning the base model."""

import json
import shutil

import pytest

from opadpo.errors import DependencyMissing, MissingArtefact, ModelError
from opadpo.models.base import BasePin, fetch_base, read_pin, write_pin
from opadpo.models.loading import load_model, load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe
from opadpo.workspace import Workspace


def recipe_for(folder, **model):
    settings = {"base": str(folder), "device": "cpu", **model}
    return parse_recipe(json.dumps({"model": settings}))


def pin_of(folder, **model) -> BasePin:
    return fetch_base(recipe_for(folder, **model).model, SilentProgress())


@pytest.fixture
def folder(tiny_llava_folder, tmp_path):
    return shutil.copytree(tiny_llava_folder, tmp_path / "model")


def edit(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def test_pin_of_a_folder(folder):
    pin = pin_of(folder)
    assert pin.family == "llava"
    assert pin.revision == pin.digest[:12]
    assert pin.name == f"{folder}@{pin.revision}"
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= set(pin.files)
    assert pin_of(folder) == pin
    edit(folder / "generation_config.json", temperature=0.5)
    assert pin_of(folder).digest != pin.digest


def test_toy_is_the_package_s_own_model():
    recipe = parse_recipe("model: {base: toy}")
    pin = fetch_base(recipe.model, SilentProgress(), offline=True)
    assert pin.name == f"toy@{pin.digest[:12]}"
    assert load_processing(pin, recipe).tokenizer.eos_token == "</s>"


def test_everything_that_is_missing_is_named_at_once(folder):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError) as caught:
        pin_of(folder)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        assert f"- {name}" in str(caught.value)


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="model-00002-of-00002"):
        pin_of(folder)


def test_pickles_are_refused_with_a_remedy(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model.bin are pickles(.|\n)*save_pretrained"):
        pin_of(folder)


def test_unknown_model_type_lists_the_known_ones(folder):
    edit(folder / "config.json", model_type="blip-2")
    with pytest.raises(ModelError, match=r"blip-2(.|\n)*llava"):
        pin_of(folder)


def test_another_family_than_the_config_s_is_refused(folder):
    with pytest.raises(ModelError, match=r"model\.family does not fit"):
        pin_of(folder, family="qwen")


def test_a_folder_that_is_not_there():
    with pytest.raises(Exception, match="no such folder"):
        pin_of("/nonexistent/model")


class TestWorkspacePin:
    @pytest.fixture
    def workspace(self, folder, tmp_path):
        text = json.dumps({"model": {"base": str(folder), "device": "cpu"}})
        return Workspace.create(tmp_path / "ws", text)

    def test_round_trip(self, workspace, folder):
        pin = pin_of(folder)
        write_pin(workspace, pin)
        assert read_pin(workspace) == pin

    def test_no_pin_says_what_to_run(self, workspace):
        with pytest.raises(MissingArtefact, match="opadpo prepare"):
            read_pin(workspace)

    def test_pin_of_another_model_is_refused(self, workspace, tiny_llava_folder):
        write_pin(workspace, pin_of(tiny_llava_folder))
        with pytest.raises(MissingArtefact, match="not the recipe's"):
            read_pin(workspace)

    def test_damaged_pin(self, workspace):
        (workspace.root / "base.json").write_text("{")
        with pytest.raises(MissingArtefact, match="damaged"):
            read_pin(workspace)

    def test_a_changed_or_vanished_file_is_noticed(self, workspace, folder):
        write_pin(workspace, pin_of(folder))
        weights = folder / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        with pytest.raises(ModelError, match=r"changed since(.|\n)*model.safetensors"):
            read_pin(workspace)
        weights.unlink()
        with pytest.raises(ModelError, match="not there any more"):
            read_pin(workspace)


class TestLoading:
    def test_frozen_and_in_eval_mode(self, folder):
        import torch

        model = load_model(pin_of(folder), recipe_for(folder, dtype="bfloat16", attention="eager"))
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert model.dtype == torch.bfloat16
        assert model.config._attn_implementation == "eager"
        assert model.config.use_cache
        assert not load_model(pin_of(folder), recipe_for(folder), training=True).config.use_cache

    def test_damaged_weights(self, folder):
        (folder / "model.safetensors").write_bytes(b"\0" * 100)
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(pin_of(folder), recipe_for(folder))

    def test_missing_weights_are_not_made_up(self, folder):
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights.pop(next(name for name in weights if "projector.linear_2.weight" in name))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"are missing(.|\n)*linear_2"):
            load_model(pin_of(folder), recipe_for(folder))

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ({"attention": "flash_attention_2"}, "model.attention is flash_attention_2"),
            ({"quantization": "4bit", "device": "auto"}, "model.quantization 4bit needs"),
            ({"quantization": "8bit", "device": "auto"}, "model.quantization 8bit needs"),
            ({"device": "cuda"}, "no CUDA GPU that torch can use"),
        ],
    )
    def test_what_is_not_on_this_machine_is_said(self, folder, model, message, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(DependencyMissing, match=message):
            load_model(pin_of(folder), recipe_for(folder, **model))


class TestMismatches:
    """Processor and tokenizer files of another model are noticed before weights load."""

    def refused(self, folder, message):
        with pytest.raises(ModelError, match=message):
            load_processing(pin_of(folder), recipe_for(folder))

    def test_image_token(self, folder):
        edit(folder / "config.json", image_token_index=7)
        self.refused(folder, "image token is not the model's")

    def test_vocabulary(self, folder):
        config = json.loads((folder / "config.json").read_text())
        edit(folder / "config.json", text_config={**config["text_config"], "vocab_size": 100})
        self.refused(folder, "more tokens than the model has embeddings")

    def test_image_size(self, folder):
        edit(folder / "preprocessor_config.json", crop_size={"height": 24, "width": 24})
        pin, recipe = pin_of(folder), recipe_for(folder)
        assert load_processing(pin, recipe).aspect == "pad"  # our own geometry takes the tower's size
        native = recipe.model_copy(update={"image": recipe.image.model_copy(update={"aspect": "native"})})
        with pytest.raises(ModelError, match=r"24 x 24 pixels, the tower takes 32 x 32"):
            load_processing(pin, native)

    def test_damaged_tokenizer(self, folder):
        (folder / "tokenizer.json").write_text("{}")
        self.refused(folder, "cannot be read")

    def test_number_of_image_features(self, folder):
        """The tower's class token is kept or not: seen only by asking the model."""
        from opadpo.models import loading

        recipe, pin = recipe_for(folder), pin_of(folder)
        model = load_model(pin, recipe)
        processing = load_processing(pin, recipe)
        model.config.vision_feature_select_strategy = "full"
        with pytest.raises(ModelError, match="17 features, 16 tokens"):
            loading._probe_model(model, processing)
