"""The recipe: every mistake at once, overrides, presets, and what counts as a changed outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opadpo.errors import RecipeError, UserError
from opadpo.recipe import Recipe, describe, dump_recipe, load_recipe, outcome, parse_recipe, preset_names, preset_text

ALL_WRONG = """
modle: {}
rollout: {temprature: 1, samples_per_prompt: 3, temperature: 0, top_p: 7}
train:
  opa: {batch_size: 10, micro_batch_size: 4, micro_batch_tokens: 900, packing: false}
  opadpo: {batch_size: 10, micro_batch_size: 4}
prepare: {source: {kind: folder}}
build: 3
"""


def test_every_mistake_is_told_at_once_with_key_value_and_remedy():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(ALL_WRONG)
    text = str(caught.value)
    assert caught.value.exit_status == 2
    assert "modle: unknown key" in text
    assert "did you mean model?" in text
    assert "rollout.temprature: unknown key, seen 1; did you mean rollout.temperature?" in text
    assert "rollout.top_p" in text
    assert "seen 7" in text
    assert "build: " in text
    assert "prepare.source.path: needed" in text
    assert "prepare.source.question: needed" in text
    assert "train.opadpo.loss.standard_pair_coef: seen 1.0" in text
    assert "train.opadpo.micro_batch_size: seen 4" in text
    assert "train.opa.micro_batch_size" not in text  # the budget of tokens takes its place
    assert "train.opa.micro_batch_tokens: seen 900 with train.opa.packing false" in text
    assert "rollout.samples_per_prompt: seen 3 with rollout.temperature 0" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rollout: [", "not valid YAML"),
        ("- 1\n- 2", "must be a mapping"),
        ("seed: 1\nrollout: {top_k: 5, top_k: 6}", "the key 'top_k' is there twice"),
        ("seed: -1", "seed"),
        ("seed: 'x'", "seed"),
        ("prepare: {subset_size: 1.0e+23}", "prepare.subset_size"),
        ("prepare: {heldout_size: 10000001}", "prepare.heldout_size"),
        ("model: {device: cpu, quantization: 4bit}", "model.quantization: seen 4bit"),
        ("model: {device: cpu}\ntrain: {opadpo: {precision: float16}}", "train.opadpo.precision: seen float16"),
        ("model: {base: /no/such/folder}", "there is no such folder"),
        ("train: {processes: 3}", "train.opa.batch_size: seen 32 with train.processes 3"),
        ("train: {opa: {warmup_steps: 5, warmup_ratio: 0.1}}", "set one of them"),
        ("train: {opa: {lora: {rank: 8}}}", "train.opadpo.lora.rank: seen 256 with train.opa.lora.rank 8"),
        ("build: {score_weights: {1: 2.0}}", "build.score_weights: seen scores [1]"),
        ("train: {opadpo: {loss: {standard_pair_coef: 0, revised_pair_coef: 0}}}", "nothing is left to prefer"),
        ("revise: {endpoint: {provider: azure}}", "revise.endpoint.base_url: needed when provider is azure"),
        ("jobs: {target: moon}", "jobs.target: seen moon; use one of local"),
        ("jobs: {targets: {a b: {}}}", "seen the name 'a b'"),
        ("jobs: {targets: {local: {kind: slurm}}}", "jobs.targets.local.kind: seen slurm"),
        ("jobs: {targets: {n: {kind: ssh}}}", "jobs.targets.n.host: needed when kind is ssh"),
        ("jobs: {targets: {n: {kind: ssh, host: -oProxyCommand=x}}}", "jobs.targets.n.host: seen '-oProxyCommand=x'"),
        ("jobs: {targets: {n: {kind: slurm, partition: 'a b'}}}", "jobs.targets.n.partition: seen 'a b'"),
        ("jobs: {targets: {n: {env: [A=secret]}}}", "jobs.targets.n.env: seen what is no name of a variable"),
        ('jobs: {targets: {n: {extra: ["--x=1\\nrm"]}}}', "jobs.targets.n.extra: seen"),
        ("jobs: {targets: {n: {gpus: [-1]}}}", "jobs.targets.n.gpus: seen [-1]"),
        ("jobs: {webhook_env: 'https://x/secret'}", "jobs.webhook_env: seen what is no name"),
        ("revise: {endpoint: {entra: true}}", "entra and api_version are Azure's"),
        ("revise: {more_endpoints: [{server_command: [serve]}]}", "revise.more_endpoints[0].server_command"),
        ("revise: {prices: {gpt-4o: {input: -1}}}", "revise.prices"),
    ],
)
def test_single_mistakes(text: str, message: str):
    with pytest.raises(RecipeError, match=r"mistake") as caught:
        parse_recipe(text)
    assert message in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(path)


def test_overrides_win_and_are_typed():
    recipe = parse_recipe("rollout: {temperature: 0.5}", ["rollout.temperature=0.7", "train.opadpo.loss.anchor=null"])
    assert recipe.rollout.temperature == 0.7
    assert recipe.train.opadpo.loss.anchor is None
    with pytest.raises(RecipeError, match=r"--set 'nonsense': write section.key=value"):
        parse_recipe("", ["nonsense"])
    with pytest.raises(RecipeError, match="a value, not a section"):
        parse_recipe("seed: 3", ["seed.deeper=1"])


def test_a_wrong_override_does_not_hide_the_recipes_mistakes():
    with pytest.raises(RecipeError) as caught:
        parse_recipe("seed: 5\nrollout: {top_p: 7}", ["nonsense", "seed.deeper=1", "seed=-3"], source="recipe.yaml")
    assert "recipe.yaml has 4 mistakes" in str(caught.value)
    for part in ("--set 'nonsense'", "seed: Input should be", "rollout.top_p", "--set 'seed.deeper=1'"):
        assert part in str(caught.value)
    with pytest.raises(RecipeError, match="command line has 1 mistake"):
        parse_recipe("", ["nonsense"])


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_headed_by_their_command_and_survive_resolving(name: str):
    text = preset_text(name)
    assert f"opadpo init WORKSPACE --recipe {name}" in text
    recipe = parse_recipe(text)
    assert recipe.name == name
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(UserError, match="toy"):
        preset_text("no-such-recipe")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_no_number_is_infinite_or_none(value: str):
    numbers = ("opa.epochs", "opa.learning_rate", "opadpo.weight_decay", "opadpo.loss.beta", "opadpo.lora.alpha")
    with pytest.raises(RecipeError) as caught:
        parse_recipe("", [f"train.{key}={value}" for key in numbers])
    assert all(f"train.{key}: " in str(caught.value) for key in numbers)


def test_every_setting_has_a_help_text():
    fields = list(describe())
    assert len(fields) > 80
    assert [info.key for info in fields if len(info.help) < 7] == []


def test_outcome_leaves_out_what_cannot_change_a_result():
    slow, fast = Recipe(), parse_recipe("rollout: {batch_size: 3}\nname: other\nmodel: {device: cpu}")
    assert outcome(slow) == outcome(fast)
    assert outcome(slow) != outcome(parse_recipe("rollout: {top_k: 3}"))


@pytest.mark.slow
@given(st.floats(0, 5), st.integers(0, 2**31 - 1), st.booleans())
def test_resolved_recipes_round_trip(temperature: float, seed: int, padded: bool):
    overrides = [
        f"rollout.temperature={temperature}",
        f"seed={seed}",
        f"train.opadpo.pad_to={896 if padded else 'null'}",
    ]
    recipe = parse_recipe(preset_text("toy"), overrides)
    assert parse_recipe(dump_recipe(recipe)) == recipe
    assert recipe.seed == seed
