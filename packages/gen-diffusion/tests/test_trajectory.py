"""Cameras there and back, what they do in words, and scores against their definitions."""

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from gen_diffusion.motion import (
    MOVES,
    SIGNS,
    TAGS,
    caption,
    describe,
    draw_trajectories,
    motion_score,
    name,
    parse,
    spread,
    tag,
)
from gen_diffusion.trajectory import FPS, plot, to_features, to_poses, to_rot6d, to_rotation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rotations(*shape, seed=0):
    q, r = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=seeded(seed), dtype=torch.float64))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    return q * torch.linalg.det(q)[..., None, None]


def moved(R, velocity):
    """Poses of a camera with these rotations that moves with velocity (f 3) along its own axes, written out."""
    p, poses = torch.tensor([3.0, -2.0, 7.0], dtype=torch.float64), []
    for rotation, v in zip(R, velocity.double(), strict=True):
        p = p + (v[0] * rotation[:, 0] + v[1] * rotation[:, 1] + v[2] * rotation[:, 2]) / FPS
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation, p
        poses.append(pose)
    return torch.stack(poses)


def test_rot6d_holds_columns_and_gram_schmidt_returns_them():
    R = rotations(50)
    torch.testing.assert_close(to_rotation(to_rot6d(R)), R, atol=1e-12, rtol=0)
    turn = rotations(1, seed=1)[0]  # columns turn with the world; rows would not
    six = to_rot6d(R).view(50, 2, 3)
    torch.testing.assert_close(to_rot6d(turn @ R).view(50, 2, 3), six @ turn.T)


def test_gram_schmidt_keeps_the_first_vector_and_makes_a_rotation():
    six = torch.randn(40, 6, generator=seeded(), dtype=torch.float64)
    R = to_rotation(six)
    torch.testing.assert_close(R[:, :, 0], six[:, :3] / six[:, :3].norm(dim=1, keepdim=True))
    torch.testing.assert_close(R.mT @ R, torch.eye(3, dtype=torch.float64).expand(40, 3, 3), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(40, dtype=torch.float64))
    assert (R[:, :, 1] * six[:, 3:]).sum(1).min() > 0  # the second one is bent, not turned round


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_six_numbers_make_a_rotation_with_a_finite_gradient(dtype):
    """Nothing, one vector, parallel and opposite vectors of any length."""
    a = rotations(6)[:, 0].to(dtype)
    lengths = torch.tensor([0, 1, 1, 5, 1e4, 0], dtype=dtype)[:, None]
    others = torch.tensor([0, 0, 7, -3, 1e4, 2], dtype=dtype)[:, None]
    six = torch.cat([a * lengths, a * others], 1).requires_grad_()
    R = to_rotation(six)
    torch.testing.assert_close(R.mT @ R, torch.eye(3, dtype=dtype).expand(6, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(6, dtype=dtype))
    (R * torch.randn(R.shape, generator=seeded(), dtype=dtype)).sum().backward()
    assert six.grad.abs().max() < 10


@pytest.mark.parametrize("shape", [(4, 4), (3, 30), (9,)])
def test_poses_and_features_there_and_back(shape):
    """To rounding, from anywhere: the start is kept. The features turn back into themselves too."""
    poses = torch.eye(4, dtype=torch.float64).repeat(*shape, 1, 1)
    poses[..., :3, :3] = rotations(*shape)
    poses[..., :3, 3] = 10 * torch.randn(*shape, 3, generator=seeded(1), dtype=torch.float64)
    features = to_features(poses)
    torch.testing.assert_close(to_poses(features), poses, atol=1e-12, rtol=0)
    torch.testing.assert_close(to_features(to_poses(features)), features, atol=1e-10, rtol=0)


def test_velocity_is_the_camera_s_own():
    """In metres per second along its axes, however the camera is turned; inverted matrices would give another."""
    R, v = rotations(30), torch.randn(30, 3, generator=seeded(2), dtype=torch.float64)
    poses = moved(R, v)
    torch.testing.assert_close(to_features(poses)[1:, 6:], v[1:])
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = rotations(1, seed=3)[0]
    torch.testing.assert_close(to_features(turn @ poses)[:, 6:], to_features(poses)[:, 6:])
    inverted = to_features(torch.linalg.inv(poses))
    assert (inverted[1:, 6:] - v[1:]).abs().mean() > 1


def test_poses_that_are_none_are_refused():
    poses = torch.eye(4).repeat(5, 1, 1)
    with pytest.raises(ValueError, match="untransposed"):
        to_features(poses + torch.eye(4).roll(1, 0))
    with pytest.raises(ValueError, match="orthonormal"):
        to_features(torch.diag(torch.tensor([2.0, 2, 2, 1])).repeat(5, 1, 1))
    with pytest.raises(ValueError, match="right-handed"):
        to_features(torch.diag(torch.tensor([-1.0, 1, 1, 1])).repeat(5, 1, 1))


@pytest.mark.parametrize("motion", range(TAGS), ids=name)
def test_the_tag_of_a_motion_is_the_motion(motion):
    """All 27, by a camera that looks anywhere, rolls and pans: left is the camera's left, not the world's."""
    angle = torch.linspace(0, 1, 100, dtype=torch.float64)
    spin = torch.eye(3, dtype=torch.float64).repeat(100, 1, 1)
    spin[:, 0, 0], spin[:, 0, 1], spin[:, 1, 0], spin[:, 1, 1] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    for seed in range(4):
        R = rotations(1, seed=seed)[0] @ spin
        for speed in (0.05, 1.0):
            speeds = torch.tensor([1.0, 0.5, 0.8]) * speed
            features = to_features(moved(R, (SIGNS[motion] * speeds).expand(100, 3)))
            assert (tag(features) == motion).all()
            assert describe(tag(features)) == caption([motion])


def test_left_is_left():
    """For a camera that looks along -x of the world, upright, the right of its picture is +z of the world."""
    forward, down = torch.tensor([-1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    right = torch.linalg.cross(down, forward)  # x = y cross z
    assert right.tolist() == [0, 0, 1]
    poses = torch.eye(4).repeat(60, 1, 1)
    poses[:, :3, :3] = torch.stack([right, down, forward], 1)
    steps = torch.arange(60)[:, None] / FPS
    for direction, words in [
        (right, "trucks right"),
        (-right, "trucks left"),
        (-down, "booms top"),
        (forward, "pushes in"),
    ]:
        poses[:, :3, 3] = steps * direction
        assert describe(tag(to_features(poses))) == f"the camera {words}"


def test_rules_of_tagging():
    def tagged(*velocities):
        features = torch.zeros(sum(n for n, _ in velocities), 9)
        features[:, 6:] = torch.cat([torch.tensor(v).expand(n, 3) for n, v in velocities])
        return tag(features)

    still, right, inward = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    assert (tagged((90, (0.019, 0.0, -0.019))) == 0).all() and (tagged((90, (0.021, 0.0, 0.0))) == 1).all()
    assert (tagged((90, (1.0, -0.39, 0.0))) == 1).all() and (tagged((90, (1.0, -0.41, 0.0))) == 1 + 6).all()
    assert tagged((80, right), (70, inward)).tolist() == [1] * 80 + [9] * 70  # a median keeps the edge
    assert (tagged((80, right), (10, (-5.0, 9.0, 0.0)), (80, right)) == 1).all()  # a glitch
    assert describe(tagged((80, still), (40, right), (80, still))) == caption([0, 1, 0])
    assert describe(tagged((80, still), (20, right), (80, inward))) == caption([0, 9])  # too short
    assert tagged((1, (9.0, 9.0, 9.0)), (20, right)).tolist() == [1] * 21  # the start, and fewer frames than a chunk


def test_noise_on_velocities_is_smoothed_away():
    data = draw_trajectories(40, generator=seeded(4))
    noise = torch.randn(data.features.shape, generator=seeded(5))
    agree = (tag(data.features + 0.02 * noise) == data.tags).double().mean()
    assert agree > 0.95


def test_drawn_trajectories_do_what_they_say():
    """The caption of their tags is their caption, and parse reads it back: for 500, in which all 27 motions occur."""
    data = draw_trajectories(500, generator=seeded())
    tags = tag(data.features)
    assert [describe(t) for t in tags] == data.captions == [caption(parse(c)) for c in data.captions]
    assert len(tags.unique()) == TAGS
    assert (tags == data.tags).double().mean() > 0.98
    wanted = torch.stack([spread(parse(c), 300) for c in data.captions])
    assert motion_score(tags, wanted).f1 > 0.95
    torch.testing.assert_close(to_features(to_poses(data.features.double())), data.features.double(), atol=1e-5, rtol=0)
    jerk = data.features[:, :, 6:].diff(dim=1).abs().amax()
    assert jerk < 0.35  # m/s from frame to frame, where speeds change by up to 2.4


@pytest.mark.parametrize("frames", [60, 130, 500])
def test_drawn_trajectories_of_other_lengths(frames):
    data = draw_trajectories(60, frames, generator=seeded(1))
    assert data.features.shape == (60, frames, 9)
    assert [describe(t) for t in tag(data.features)] == data.captions
    assert max(len(parse(c)) for c in data.captions) == min(4, frames // 60)


def test_drawing_is_seeded_and_refuses_what_is_too_short():
    state = torch.get_rng_state()
    a, b, c = (draw_trajectories(8, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(a.features, b.features) and a.captions == b.captions and a.captions != c.captions
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="at least 60 frames"):
        draw_trajectories(2, 59)


def test_every_tag_has_its_own_name_that_parses():
    assert len({name(t) for t in range(TAGS)}) == TAGS and len(SIGNS.unique(dim=0)) == TAGS
    assert all(parse(caption([t])) == (t,) for t in range(TAGS))
    assert name(1 + 6 + 18) == "trucks right and booms top and pulls out"
    for axis, moves in enumerate(MOVES):
        for sign, move in zip((1, -1), moves, strict=True):
            assert SIGNS[parse(move)[0]].tolist() == [sign * (i == axis) for i in range(3)]


@pytest.mark.parametrize(
    "text",
    [
        "the camera pushes in, then trucks left",
        "Push in then truck left.",
        "The camera pushes in. Then the camera trucks left",
    ],
)
def test_captions_may_be_written_in_several_ways(text):
    assert parse(text) == (9, 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("the camera zooms in", "cannot read the word 'zooms'"),
        ("the camera pushes left", "cannot read the motion 'pushes left'"),
        ("", "cannot read the motion ''"),
        ("pushes in, then", "cannot read the motion ''"),
        ("trucks left and trucks right", "moves one axis twice"),
        ("stays static and trucks right", "'stays static' does nothing beside it, got 'stays static and trucks right'"),
        ("pushes in trucks left", "cannot read the motion 'pushes in trucks left'"),
    ],
)
def test_what_cannot_be_read_is_named(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_motion_score_is_scikit_learn_s():
    """With tags that are only asked for, and others that are only given."""
    wanted = torch.randint(0, 12, (20, 30), generator=seeded())
    given = torch.where(torch.rand(20, 30, generator=seeded(1)) < 0.5, wanted, wanted + 9)
    theirs = precision_recall_fscore_support(wanted.flatten(), given.flatten(), average="macro", zero_division=0.0)
    assert motion_score(given, wanted) == pytest.approx(theirs[:3], abs=1e-12)
    assert motion_score(wanted, wanted) == (1, 1, 1)
    with pytest.raises(ValueError, match="cannot be compared"):
        motion_score(given[0], wanted)


def test_plot_draws_a_picture(tmp_path):
    """Of one or several, to the same bytes each time; a camera that never moves has a picture too."""
    data = draw_trajectories(2, generator=seeded(3))
    several, again = (plot(data.features, tmp_path / name, data.captions) for name in ("a.png", "b.png"))
    assert several.read_bytes()[:4] == b"\x89PNG" and several.read_bytes() == again.read_bytes()
    still = plot(data.features[0] * (torch.arange(9) < 6), tmp_path / "c.png", "the camera stays static", cameras=1)
    assert 5_000 < still.stat().st_size < several.stat().st_size
