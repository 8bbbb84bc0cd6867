from __future__ import annotations

import pytest
import torch
from helpers import gaussian

from torchdl.collective import gather, rank_and_size, sum_over_processes

WORKER = """
import os, sys

import torch
import torch.distributed as dist

from torchdl.collective import gather, rank_and_size, sum_over_processes

other = os.fork()
rank = int(other == 0)
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting", rank=rank, world_size=2)
made = {"rank and size": rank_and_size()}
for rows in ((3, 1), (0, 2), (2, 2)):
    whole = torch.randn(sum(rows), 4, 5, generator=torch.Generator().manual_seed(1))
    mine = whole.split(rows)[rank].clone().requires_grad_()
    (all_of_them,), start = gather(mine)
    (all_of_them[:, None] - all_of_them[None]).square().mul(all_of_them).sum().backward()
    made[rows] = {"rows": all_of_them.detach(), "start": start, "gradient": mine.grad}

(labels,), start = gather(torch.arange(2 + rank) + 10 * rank)
made["labels"] = labels
(half,), _ = gather(torch.full((1, 2), 1 + 2**-7 * rank, dtype=torch.bfloat16))
made["half"] = half

x = torch.full((3,), 1.0 + rank, requires_grad=True)
total = sum_over_processes(x)
(total * torch.tensor([1.0, 2.0, 3.0]) * (1 + rank)).sum().backward()  # each has a loss of its own
made["sum"] = {"total": total.detach(), "gradient": x.grad, "x": x.detach()}
torch.save(made, f"made-by-{rank}.pt")
dist.destroy_process_group()
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Let two processes gather and add up; return what each came to."""
    folder = tmp_path_factory.mktemp("collective")
    (folder / "worker.py").write_text(WORKER)
    done = run(str(folder / "worker.py"), folder)
    assert (done.code, done.err) == (0, "")
    return [torch.load(folder / f"made-by-{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_one_process_gathers_what_it_has_and_adds_nothing():
    x = gaussian(3, 2).requires_grad_()
    assert rank_and_size() == (0, 1)
    (rows,), start = gather(x)
    assert rows is x
    assert start == 0
    assert sum_over_processes(x) is x


@pytest.mark.slow
@pytest.mark.parametrize("rows", [(3, 1), (0, 2), (2, 2)])
def test_both_processes_gather_all_rows_in_order_and_know_their_own(made, rows):
    assert [of_one["rank and size"] for of_one in made] == [(0, 2), (1, 2)]
    whole = gaussian(sum(rows), 4, 5, seed=1)
    for of_one in made:
        assert torch.equal(of_one[rows]["rows"], whole)
    assert [of_one[rows]["start"] for of_one in made] == [0, rows[0]]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [(3, 1), (0, 2), (2, 2)])
def test_the_mean_of_the_gradients_is_that_of_one_process_with_all_rows(made, rows):
    whole = gaussian(sum(rows), 4, 5, seed=1).requires_grad_()
    (whole[:, None] - whole[None]).square().mul(whole).sum().backward()
    assert whole.grad.abs().max() > 1
    # a row is on one process only: the other one's gradient of it is 0, in the mean
    gradient = torch.cat([of_one[rows]["gradient"] for of_one in made]) / 2
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_numbers_of_other_kinds_are_gathered_as_they_are(made):
    for of_one in made:
        assert of_one["labels"].tolist() == [0, 1, 10, 11, 12]
        assert of_one["labels"].dtype == torch.int64
        assert of_one["half"].dtype == torch.bfloat16
        assert of_one["half"].tolist() == [[1.0, 1.0], [1 + 2**-7, 1 + 2**-7]]


@pytest.mark.slow
def test_a_sums_gradient_is_the_sum_of_the_gradients(made):
    for rank, of_one in enumerate(made):
        assert of_one["sum"]["total"].tolist() == [3.0, 3.0, 3.0]
        assert of_one["sum"]["gradient"].tolist() == [3.0, 6.0, 9.0]  # 1 and 2 times the coefficients
        assert of_one["sum"]["x"].tolist() == [1.0 + rank] * 3  # what was given is left alone
