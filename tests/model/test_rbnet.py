"""The default bundle: finite whatever goes in, cheap, and as good as its card says."""

import evaluate
import numpy as np
import pytest
import torch

from rbstream.files import data_path
from rbstream.lab.anatomy import dissect
from rbstream.lab.networks import build
from rbstream.model import load_bundle
from rbstream.model.manifest import read_bundle
from rbstream.model.rbnet import CoreAndContext, Robust
from rbstream.simulate import triplets
from rbstream.simulate.kinds import REAL

BUNDLE = "models/rbnet.pt"


def triplet(fill: float = 0.0) -> torch.Tensor:
    noise = 100 + 5 * torch.randn((1, 3, 63, 63), generator=torch.Generator().manual_seed(1))
    return noise + fill


def poisoned(value: float, where: tuple[slice, ...]) -> torch.Tensor:
    stamps = triplet()
    stamps[where] = value
    return stamps


ALL, CHANNEL, CORNER = (slice(None),), (slice(None), slice(2, 3)), (..., slice(0, 20), slice(0, 20))


@pytest.mark.parametrize("where", [ALL, CHANNEL, CORNER], ids=["everywhere", "one channel", "a corner"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3.4e38, 3.4e38, 0.0, 65535.0, 6e29, -6e29, 9e29, -9e29])
def test_the_normalisation_is_finite_for_any_pixels(value, where):
    x = Robust()(poisoned(value, where))
    assert x.dtype == torch.float32
    assert x.shape == (1, 4, 63, 63)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.4e38, 1e30, -1e30])
def test_masked_pixels_are_zero_and_marked(value):
    x = Robust()(poisoned(value, (..., slice(10, 20), slice(10, 20))))
    assert (x[0, :3, 10:20, 10:20] == 0).all()
    assert (x[0, 3, 10:20, 10:20] == 1).all()
    assert x[0, 3].sum() == 100


@pytest.mark.parametrize("where", [ALL, CHANNEL, CORNER], ids=["everywhere", "one channel", "a corner"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -3.4e38, 0.0])
def test_slopes_are_finite_and_zero_where_masked(value, where):
    """Or `rbstream model explain` has nothing to show of an alert with masked pixels."""
    stamps = poisoned(value, where).requires_grad_()
    CoreAndContext().eval()(Robust()(stamps)).sum().backward()
    assert torch.isfinite(stamps.grad).all()
    assert value == 0 or (stamps.grad[where] == 0).all()
    assert value == 0 or where is ALL or (stamps.grad != 0).any()


def test_a_pixel_masked_in_one_stamp_is_marked_for_all():
    x = Robust()(poisoned(np.nan, (0, 1, 40, 50)))
    assert x[0, 3].nonzero().tolist() == [[40, 50]]
    assert x[0, 0, 40, 50] != 0


def test_the_normalisation_forgets_level_and_noise_but_not_amplitude():
    quiet = triplet()
    bright = quiet.clone()
    bright[0, 2, 31, 31] += 500
    normalize = Robust()
    assert torch.allclose(normalize(quiet), normalize(quiet * 4 + 1000), atol=1e-3)
    assert normalize(bright)[0, 2, 31, 31] > normalize(quiet)[0, 2, 31, 31] + 1


def test_the_network_scripts_and_gives_one_logit_an_alert():
    network = torch.jit.script(CoreAndContext().eval())
    assert network(torch.zeros(5, 4, 63, 63)).shape == (5, 1)


def test_it_costs_at_most_half_of_braai_in_multiply_adds():
    ours = dissect("rbnet", build("rbnet", 4, 63), (4, 63, 63))
    braai = dissect("vgg6", build("vgg6", 3, 63), (3, 63, 63))
    assert ours.multiply_adds <= braai.multiply_adds / 2


def test_an_alert_scores_the_same_alone_and_in_a_batch():
    scorer = load_bundle(data_path(BUNDLE))
    batch = torch.cat([triplet(), poisoned(np.nan, ALL), poisoned(65535.0, CORNER)]).numpy()
    alone = np.concatenate([scorer.score(batch[i : i + 1]) for i in range(3)])
    assert scorer.score(batch) == pytest.approx(alone, abs=1e-5)
    assert np.isfinite(alone).all()


def test_the_default_bundle_is_small_and_says_how_it_was_made():
    bundle = read_bundle(data_path(BUNDLE))
    assert len(bundle.content) < 2 << 20
    assert bundle.manifest.survey == "ztf"
    assert bundle.manifest.provenance["threshold"]["made with"].startswith("python models/recipe.py --seed")
    assert data_path("models/rbnet.md").exists()


@pytest.mark.parametrize("field", evaluate.FIELDS)
def test_stars_that_are_put_beside_reals_lose_few_of_them(field):
    """A crowded field is no sign of an artefact: networks that had seen few of these stars lost 6 and 4%."""
    scorer = load_bundle(data_path(BUNDLE))
    stamps, _, _ = triplets(640, 5, REAL)

    def passes(stamps: np.ndarray) -> np.ndarray:
        scores = [scorer.score(stamps[i : i + 64]) for i in range(0, len(stamps), 64)]
        return np.concatenate(scores) >= scorer.manifest.threshold

    before = passes(stamps)
    assert before.mean() > 0.97
    assert passes(evaluate.beside_stars(stamps, evaluate.FIELDS[field], 1))[before].mean() > 0.97


def test_known_asteroids_pass_and_what_both_braais_reject_does_not(shared_data):
    """The claim of the card, at the bundle's own threshold. In sample: held-out figures are on the card."""
    scorer = load_bundle(data_path(BUNDLE))
    table = np.load(shared_data / "ztf/stamps.npz")
    stamps = table["stamps"]
    scores = np.concatenate([scorer.score(stamps[i : i + 64]) for i in range(0, len(stamps), 64)])
    passed = scores >= scorer.manifest.threshold
    assert passed[table["asteroid"]].mean() >= 0.97
    assert passed[table["consensus"] == 0].mean() <= 0.10
    assert passed[table["consensus"] == 1].mean() >= 0.98
