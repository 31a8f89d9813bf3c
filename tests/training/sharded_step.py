"""One of two processes of torchrun: a packed step with sharded parameters (FSDP2) against the whole model's."""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from test_packing import load
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from opadpo.models.base import BasePin
from opadpo.recipe.loss import LossConfig
from opadpo.training.loss import Logps, Masks, Weights, opadpo_loss
from opadpo.training.policy import computing_as, load_policy, policy_weights, save_adapter
from opadpo.training.sharding import whole as full

NAMES = ("standard", "revised", "generated", "standard_masked", "revised_masked")


def shard(model):
    """The model as accelerate 1.15 shards it: layers, embedding, norm and head together, then what is left."""
    for module in list(model.modules()):
        if type(module).__name__ in ("LlamaDecoderLayer", "CLIPEncoderLayer"):
            fully_shard(module)
    fully_shard(model.get_input_embeddings())
    fully_shard([model.get_base_model().model.language_model.norm, model.get_output_embeddings()])
    return fully_shard(model)


def step(model, batch):
    """(log-probs of policy and reference, loss) with gradients; the reference comes first, as in training."""

    def logps():
        return batch.sequences.prepared(model).logps(model)

    with computing_as(model, None):
        reference = logps()
    policy = logps()
    by_name = [dict(zip(NAMES, x.view(len(NAMES), len(batch.indexes), -1), strict=True)) for x in (policy, reference)]
    masks = Masks(*(batch.masks[name] for name in Masks._fields))
    weights = Weights(*(torch.ones_like(masks.revised, dtype=torch.float32) for _ in Weights._fields))
    policy_by, reference_by = (Logps(*(values[name] for name in NAMES)) for values in by_name)
    loss = opadpo_loss(policy_by, reference_by, weights, LossConfig(), masks=masks, pad_to=policy.shape[1]).loss
    loss.backward()
    return policy, reference, loss


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    loaded = load("llava", folder / f"rank-{dist.get_rank()}")
    whole = loaded.adapted()
    sharded = shard(copy.deepcopy(whole))
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    batch = loaded.batch(packing=True)
    for ours, theirs in zip(step(sharded, batch), step(whole, batch), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    trained = {name: p for name, p in sharded.named_parameters() if p.requires_grad}
    expected = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    assert trained.keys() == expected.keys()
    for name, parameter in trained.items():
        torch.testing.assert_close(full(parameter.grad), expected[name].grad, atol=1e-6, rtol=1e-4)
    norms = [torch.nn.utils.clip_grad_norm_(params.values(), 0.01) for params in (trained, expected)]
    torch.testing.assert_close(full(norms[0]), norms[1], atol=0, rtol=1e-4)
    for params in (trained, expected):
        torch.optim.SGD(params.values(), lr=10.0).step()
    weights = policy_weights(sharded)
    for name, weight in policy_weights(whole).items():
        torch.testing.assert_close(weights[name], weight, atol=1e-6, rtol=1e-4)
    if dist.get_rank() == 0:
        save_adapter(
            sharded, weights, folder / "saved", BasePin(base="b", revision="", path="", digest="", family="llava")
        )
    dist.barrier()
    with torch.no_grad():
        for parameter in trained.values():
            parameter.zero_()
    load_policy(sharded, folder / "saved")
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    for name, weight in policy_weights(sharded).items():
        assert torch.equal(weight, weights[name])
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
