"""Search the nearest successes of images: from the images, from noise around the best so far, from other images."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.attacks.box_search import box_points
from intriguing.attacks.chunk import ChunkResult, Goal
from intriguing.attacks.descent import descend, random_direction, unit
from intriguing.attacks.effort import Effort
from intriguing.attacks.network import Network
from intriguing.attacks.penalty import Settings, search, search_from_box_points
from intriguing.attacks.progress import report
from intriguing.attacks.starts import Pool
from intriguing.attacks.tracker import Tracker
from intriguing.attacks.walk import Walk

_RESERVE = 2  # passes for the checks of the unperturbed image and of the result, beside those that measure the rounding
_DEFAULT_RADIUS = 0.01  # in diagonals of the box, where the gradient gives no distance
_RIVAL = 1.2  # ratio of the distances of two linearised boundaries, up to which the farther one is tried too
_LENGTHS = 1.0, 1.4, 2.0, 4.0  # factors of a restart's perturbation, tried until one succeeds
_SHARES = 0.5, 0.75, 1.0  # of the way to another image, tried until one succeeds
_HOPELESS = 1.3, 1.08  # ratios to the nearest success, after the descent and the first steps, that end a restart
_FIRST_PROJECTIONS = 3
_POOL_TURN = 3  # every third restart is from the pool: noise more often leads to a nearer minimum
_IDLE = 2  # steps without a gain that end a walk
_EXACT = 1e-4  # relative gain of a step that counts in the last walk
_SAME = 1e-3  # relative difference of distances that belong to one minimum
_NUM_POINTS = 24  # of the whole box, tried where the first descents failed
_COARSE = Settings(
    c_start=0.1, c_min=1e-8, c_max=1e8, c_factor=10.0, c_tolerance=1.0, search_steps=40, max_iter=100, tolerance=0.1
)


class Search:
    """Search the nearest successes of a chunk of images within a budget of passes."""

    def __init__(self, net: Network, origin: Tensor, goal: Goal, effort: Effort, pool: Pool | None) -> None:
        """Prepare the search.

        Args:
            net: the network under attack.
            origin: (N, n), flat images in [0, 1].
            goal: goal of each image.
            effort: settings.
            pool: images that may be starts; None for none.
        """
        self._tracker = Tracker(net, origin, goal)
        self._effort = effort
        self._pool = pool
        self._extra = torch.zeros_like(goal.classes)  # passes of searches that do not count against the budget
        self._left_at_first = 0
        self._returns = torch.zeros_like(goal.classes)  # restarts that ended at the best distance

    def run(self) -> ChunkResult:
        """Run the search."""
        tracker = self._tracker
        self._from_the_images()
        self._from_box_points()
        if not bool(tracker.found.all()):
            self._search_further()
        self._restart()
        self._walk_on()
        return tracker.result()

    def _left(self, rows: Tensor) -> Tensor:
        """Return the passes (R,) that are left for the images ``rows``."""
        net = self._tracker.net
        reserve = _RESERVE + net.noise_passes + net.called_again[1]
        return self._effort.budget + self._extra[rows] - reserve - self._tracker.passes[rows]

    def _from_the_images(self) -> None:
        """Descend from the images towards the nearest linearised boundaries, and walk on from where they end."""
        tracker, effort = self._tracker, self._effort
        distances, directions = tracker.boundaries(max(1, min(effort.num_slopes, effort.budget // 6)))
        affordable = int(self._left(torch.zeros_like(tracker.goal.classes[:1]))) // 2  # steps; the same for all images
        first_steps = effort.first_steps or effort.num_steps
        count = max(1, min(effort.num_candidates, distances.shape[1], affordable // first_steps))
        rival = 2.0 if tracker.goal.targeted else _RIVAL
        diagonal = tracker.origin.shape[1] ** 0.5
        near = distances[:, :count] <= rival * distances[:, :1]
        near[:, 0] = True
        rows, places = near.nonzero(as_tuple=True)
        radius = torch.where(distances < diagonal, distances, _DEFAULT_RADIUS * diagonal)[rows, places]
        start = tracker.origin[rows] + unit(directions[rows, places]) * radius[:, None]
        steps = max(1, min(first_steps, affordable))
        self._left_at_first = 2 * affordable - 2 * steps * count  # at least, of an image that has not walked
        self._improve(rows, start.clamp_(0, 1), radius, steps)

    def _from_box_points(self) -> None:
        """Look for a first success at points of the whole box, where the descents found none."""
        tracker = self._tracker
        points = box_points(tracker.origin, _NUM_POINTS)
        rows = missing = (~tracker.found).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        for point in points:
            if len(missing) == 0:
                break
            tracker.gap(point.expand(len(missing), -1), missing)
            missing = missing[~tracker.found[missing]]
        rows = rows[tracker.found[rows]]
        if len(rows):
            # by the worst case, so that no image depends on another
            affordable = max(1, (self._left_at_first - _NUM_POINTS) // 2)
            steps = min(self._effort.num_steps, affordable)
            self._improve(rows, tracker.best[rows], tracker.distance[rows], steps)

    def _restart(self) -> None:
        """Restart the search until the budgets are spent, or all restarts of an image end at the same distance."""
        tracker, effort = self._tracker, self._effort
        least = sum((len(_LENGTHS), 2 * effort.num_steps, 2 + effort.num_rivals))
        indices, usable = self._pool_starts()
        number = 0
        while effort.num_restarts is None or number < effort.num_restarts:
            rows = tracker.found & (self._returns < effort.patience)
            rows = rows.nonzero().squeeze(1)
            rows = rows[self._left(rows) >= least]
            if len(rows) == 0:
                break
            number += 1
            before = tracker.distance[rows]
            place, turn = divmod(number, _POOL_TURN)
            from_pool = turn == 0 and place <= indices.shape[1]
            if from_pool:
                x, success = self._towards_pool(rows, indices[rows, place - 1], usable[rows, place - 1])
            else:
                x, success = self._with_noise(rows, number)
            rows, before = rows[success], before[success]
            if len(rows) == 0:
                continue
            reached = self._improve(rows, x[success], (x[success] - tracker.origin[rows]).norm(dim=1))
            same = (reached - before).abs() <= _SAME * before
            self._returns.index_add_(0, rows, same.long())
            report(float((tracker.passes.double() / effort.budget).clamp(max=1).mean()))

    def _pool_starts(self) -> tuple[Tensor, Tensor]:
        """Choose the images of the pool for the restarts."""
        tracker = self._tracker
        if self._pool is None:
            nothing = torch.zeros(len(tracker.origin), 0, dtype=torch.int64, device=tracker.origin.device)
            return nothing, nothing.bool()
        return self._pool.nearest(tracker.origin, tracker.goal, max(1, self._effort.budget // 100))

    def _with_noise(self, rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Add noise to the nearest successes, and lengthen the perturbation until it succeeds.

        Returns:
            Points (R, n), and whether they succeed (R,) bool.
        """
        tracker = self._tracker
        origin, best = tracker.origin[rows], tracker.best[rows]
        smallest, largest = self._effort.noise
        size = smallest * (largest / smallest) ** _van_der_corput(number)
        noise = random_direction(origin, number)
        noisy = torch.addcmul(best, noise[None], (size * tracker.distance[rows])[:, None]).clamp_(0, 1)
        return self._first_success(rows, noisy, _LENGTHS)

    def _towards_pool(self, rows: Tensor, index: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        """Take the nearest of a few points on the way to other images that succeeds.

        Returns:
            Points (R, n), and whether they succeed (R,) bool.
        """
        assert self._pool is not None
        x = self._pool.images[index]
        success = torch.zeros_like(usable)
        x[usable], success[usable] = self._first_success(rows[usable], x[usable], _SHARES)
        return x, success

    def _first_success(self, rows: Tensor, x: Tensor, lengths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Try the perturbations to x (R, n) at several lengths; stop at the first that succeeds."""
        tracker = self._tracker
        found, success = x.clone(), torch.zeros_like(rows, dtype=torch.bool)
        trying = torch.arange(len(rows), device=rows.device)
        for length in lengths:
            trial = torch.lerp(tracker.origin[rows[trying]], x[trying], length).clamp_(0, 1)
            reached = tracker.gap(trial, rows[trying]) > 0
            found[trying[reached]], success[trying[reached]] = trial[reached], True
            trying = trying[~reached]
            if len(trying) == 0:
                break
        return found, success

    def _improve(self, rows: Tensor, x: Tensor, radius: Tensor, num_steps: int | None = None) -> Tensor:
        """Descend from start points, and walk along the boundary from those that come near the best results.

        Args:
            rows: (R,), the image of each start point.
            x: (R, n), start points.
            radius: (R,), first radius of the descent.
            num_steps: steps of the descent; None for those of the effort.

        Returns:
            The distances (R,) where the walks ended; inf where the descent found nothing.
        """
        tracker, effort = self._tracker, self._effort
        x, reached = descend(tracker, rows, x, radius, num_steps or effort.num_steps, effort.change)
        places = (reached < _HOPELESS[0] * tracker.distance[rows]).nonzero().squeeze(1)
        if len(places) == 0:
            return reached
        walk = Walk(tracker, rows[places], x[places], effort.num_rivals)
        for index in range(effort.num_projections):
            kept = self._left(walk.rows) >= walk.cost
            if index == _FIRST_PROJECTIONS:
                kept &= walk.distance <= _HOPELESS[1] * tracker.distance[walk.rows]
            elif index > _FIRST_PROJECTIONS:
                kept &= walk.idle < _IDLE
            walk.take(kept)
            places = places[kept]
            if len(walk) == 0:
                break
            walk.step()
            reached[places] = walk.distance
        return reached

    def _walk_on(self) -> None:
        """Spend what is left on a walk from the nearest success."""
        tracker = self._tracker
        rows = tracker.found.nonzero().squeeze(1)
        if len(rows) == 0 or self._effort.num_projections == 0:
            return
        walk = Walk(tracker, rows, tracker.best[rows], self._effort.num_rivals, settled=_EXACT)
        while len(walk):
            walk.take((self._left(walk.rows) >= walk.cost) & (walk.idle < _IDLE))
            if len(walk):
                walk.step()

    def _search_further(self) -> None:
        """Search images without a success by the penalty method and in the whole box, and improve what is found.

        The passes of these searches do not count against the budget: an image is not given up before.
        """
        tracker = self._tracker
        missing = (~tracker.found).nonzero().squeeze(1)
        before = tracker.passes[missing]
        targets = tracker.goal.classes[missing]
        if not tracker.goal.targeted:
            logits = tracker.net.logits(tracker.origin[missing])
            targets = logits.scatter(1, targets[:, None], -torch.inf).argmax(dim=1)
        tracker.add(missing, search(tracker.net, tracker.origin[missing], targets, _COARSE))
        rows = missing[~tracker.found[missing]]
        if len(rows):
            goal = tracker.goal.take(rows)
            tracker.add(rows, search_from_box_points(tracker.net, tracker.origin[rows], goal, _COARSE))
        self._extra[missing] = tracker.passes[missing] - before
        rows = missing[tracker.found[missing]]
        if len(rows):
            self._improve(rows, tracker.best[rows], tracker.distance[rows])


def _van_der_corput(number: int) -> float:
    """Return the element of van der Corput's sequence in base 2, evenly spread over (0, 1)."""
    value, share = 0.0, 0.5
    while number:
        value, share, number = value + share * (number % 2), share / 2, number // 2
    return value
