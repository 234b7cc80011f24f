"""What one sampling run remembers between its steps, and what one call tells the network."""

from dataclasses import dataclass, field
from typing import Any

from ....sparse_model.method.schedule import Schedule, Settings
from ....sparse_model.method.tokens import SubsetSeed
from .progress import progress

KEY = "sparse_guidance"
"""Our entry in the host's transformer_options, and the name of our wrappers and additional models."""


@dataclass(frozen=True)
class Mark:
    """What the host's transformer_options carry during a guided call: the sparsity rate of each branch.

    `shared`: both branches have the same condition, so chunks with one uuid are the same input.
    """

    gammas: tuple[float, ...]
    seed: SubsetSeed
    shared: bool = False

    def branch(self, index: int) -> int:
        """The branch of entry `index` of a list of conditions; entries that we did not put there count as strong."""
        return index if index < len(self.gammas) else 0

    def gamma(self, index: int) -> float:
        return self.gammas[self.branch(index)]


@dataclass(eq=False)
class Run:
    """One sampling run under a schedule. `cfg` is the scale at which a stock sampler combines the two predictions,
    `steps` how many evaluations are expected: their token subsets are drawn at once.

    An object because the host copies dicts and lists in its options at every call. It is made when sampling starts
    and vanishes with the run's own options.
    """

    schedule: Schedule
    seed: int = 0
    evaluation: int = 0
    cfg: float | None = None
    steps: int = 1
    strong: Mark | None = field(default=None, init=False)
    guided: int = field(default=0, init=False)
    latest: tuple[float, Settings] | None = field(default=None, init=False)
    subsets: SubsetSeed = field(init=False)

    def __post_init__(self):
        self.subsets = SubsetSeed(self.seed, self.evaluation, self.schedule.selection, ahead=self.steps)

    def __deepcopy__(self, memo: dict) -> "Run":
        """Old hosts copy the options of a model deeply at every clone; a run has one state."""
        return self

    def settings(self, model_sampling: Any, sigma: float) -> Settings:
        """The schedule at a noise level; a guider and its hook ask for the same one in a row."""
        if self.latest is None or self.latest[0] != sigma:
            self.latest = sigma, self.schedule.at(progress(model_sampling, sigma))
        return self.latest[1]

    def next_mark(self, now: Settings, shared: bool) -> Mark:
        """A fresh token subset for every evaluation of the model (arXiv 2601.01608, section 3)."""
        seed = self.subsets.at(self.evaluation)
        self.evaluation, self.guided = self.evaluation + 1, self.guided + 1
        self.strong = Mark((now.gamma_strong,), seed)
        return Mark((now.gamma_strong, now.gamma_weak), seed, shared)


def first_evaluation(model_sampling: Any, sigma: float) -> int:
    """Where a run starts to count evaluations: 0 from pure noise, elsewhere in img2img and later stages, so that two
    stages of one seed do not keep the same tokens."""
    return round(progress(model_sampling, sigma) * 1_000_000)


def current_mark(transformer_options: dict[str, Any]) -> Mark | None:
    """The mark of this call. Calls that other nodes make between ours (SLG, PAG) see the strong branch's settings: they
    compare their own prediction with the strong one."""
    entry = transformer_options.get(KEY)
    return entry.strong if isinstance(entry, Run) else entry


def with_entry(model_options: dict[str, Any], entry: Run | Mark) -> dict[str, Any]:
    """A copy of model options in which transformer_options carry our entry."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), KEY: entry}}
