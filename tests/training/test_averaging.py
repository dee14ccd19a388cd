import torch
from torch import nn

from inkbatch.training.averaging import WeightMean, cosine, renew_statistics


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "conv.weight": torch.randn(4, 3),
        "norm.running_mean": torch.randn(4),
        "norm.num_batches_tracked": torch.tensor(seed),
    }


def test_the_mean_is_taken_in_float64_and_kept_in_the_weights_own_dtype():
    mean, members = WeightMean(frozenset({"conv.weight"})), [weights(seed) for seed in (1, 2, 3)]
    for member in members:
        mean.add(member)
    expected = torch.stack([member["conv.weight"].double() for member in members]).sum(0) / 3
    found = mean.mean()
    assert found["conv.weight"].dtype == torch.float32
    torch.testing.assert_close(found["conv.weight"], expected.float(), rtol=0, atol=0)


def test_what_counts_steps_is_not_averaged():
    mean = WeightMean(frozenset({"conv.weight"}))
    for seed in (7, 9):
        mean.add(weights(seed))
    assert int(mean.mean()["norm.num_batches_tracked"]) == 7


def test_the_mean_of_equal_weights_is_equal_to_them():
    mean = WeightMean(frozenset({"conv.weight"}))
    assert [round(mean.add(weights(5)), 12) for _ in range(4)] == [1.0] * 4
    for name, tensor in mean.mean().items():
        torch.testing.assert_close(tensor, weights(5)[name], rtol=0, atol=0)


def test_the_cosine_counts_trained_weights_alone():
    one, other = weights(1), weights(1) | {"norm.running_mean": torch.full((4,), 100.0)}
    assert round(cosine(one, other, {"conv.weight"}), 12) == 1.0
    turned = one | {"conv.weight": -one["conv.weight"]}
    assert round(cosine(one, turned, {"conv.weight"}), 12) == -1.0


def test_statistics_are_those_of_the_batches_and_the_mode_stays():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()
    batches = [torch.randn(16, 3) * 2 + 5 for _ in range(4)]
    assert renew_statistics(network, iter(batches), seed=0)
    whole = torch.cat(batches)
    torch.testing.assert_close(network[0].running_mean, whole.mean(0))
    assert not network.training


def test_a_network_without_such_statistics_reads_no_batch():
    def refuse():
        raise AssertionError("read")
        yield

    assert not renew_statistics(nn.Sequential(nn.Linear(2, 2)), refuse(), seed=0)
