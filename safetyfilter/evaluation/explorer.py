"""The explorer of thresholds, for notebooks: sliders over the plane of scores, and what they keep and exclude."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OutputError, PolicyError, SafetyFilterError, UsageError
from safetyfilter.evaluation.explorer_controls import threshold_control, when_typed, widgets
from safetyfilter.evaluation.explorer_counts import Explored, at_thresholds
from safetyfilter.evaluation.explorer_figure import figure_widget, show_areas
from safetyfilter.evaluation.explorer_text import in_a_sentence, readout, sentences_html
from safetyfilter.evaluation.plane import Outcome
from safetyfilter.evaluation.plane_labels import Finding
from safetyfilter.storage import Location, Place, replacing

if TYPE_CHECKING:
    from collections.abc import Iterator


class ThresholdExplorer:
    """Sliders for the pair's two thresholds, and the counts and shares of what they keep and exclude, in a notebook.

    It works on counts: a slider is answered as fast for ten million samples as for ten. It shows no picture, no sample
    and no name. Counts are exact, those of `apply_policy`, at the thresholds that the sliders can take, and a number
    that is typed moves to the nearest of them.

    Parameters
    ----------
    run_or_scores : Run, path, table, mapping or ScorePlane
        A finished run or its path or URL; scores with a column for each signal, as a Parquet or CSV file, an Arrow
        table, a data frame or a mapping; or a plane of them.
    labels : path, table or mapping, optional
        A column for one or both of the pair, as of `evaluate`. With a run's they are joined by a column ``key`` or
        ``key_digest``; with other scores by that where both have it, else row by row. For a plane, `PlaneLabels`.
    policy : Policy, optional
        The policy to start from; the run's or the plane's own, or ``Policy()``, where None.
    confidence : float
        Of intervals and bounds, in (0, 1).

    Raises
    ------
    MissingExtraError
        ipywidgets or anywidget is not installed.
    UnfinishedRunError, RunError, CalibrationError
        The run is not finished, or scores or labels can't be read or joined.
    UsageError
        The policy can't be tried on these counts.

    Examples
    --------
    >>> explorer = ThresholdExplorer({"explicit": [0.9, 0.8, 0.1], "minor": [0.7, 0.3, 0.2]})
    >>> explorer.outcome.excluded
    1
    >>> explorer.policy = Policy(thresholds={"explicit": 0.5, "minor": 0.3})
    >>> explorer.outcome.excluded, explorer.outcome.reasons["co_occurrence"]
    (2, 2)
    """

    def __init__(
        self, run_or_scores: Any, labels: Any = None, *, policy: Policy | None = None, confidence: float = 0.95
    ) -> None:
        ipywidgets = widgets()
        if not 0 < confidence < 1:
            raise UsageError(f"the confidence is {confidence!r}; give a number between 0 and 1")
        self._explored = Explored.of(run_or_scores, labels, policy)
        self._confidence = confidence
        self._presets = self._explored.presets()
        self._policy = self._explored.policy
        self._start = self._explored.outcome(self._policy)
        self._build(ipywidgets)
        self._show()

    @property
    def policy(self) -> Policy:
        """The chosen policy. It can be set, to one with thresholds of the sliders'; `UsageError` for another."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        policy = self._explored.from_policy(policy).policy
        names = [name for name, preset in self._presets.items() if _same_exclusions(preset, policy)]
        if not names:
            self._presets["as set"] = policy
            names = ["as set"]
        with self._quiet():
            self._menu.options = list(self._presets)
            self._menu.value = names[0]
            for control, grid, signal in self._axes():
                control.place = grid.place(policy.thresholds[signal])
                control.note = ""
        self._policy = policy
        self._show()

    @property
    def outcome(self) -> Outcome:
        """The counts that the chosen policy keeps and excludes."""
        return self._explored.outcome(self._policy)

    @property
    def findings(self) -> list[Finding]:
        """Precision, recall and bounds of the chosen policy on what is labelled; empty without labels."""
        return self._explored.findings(self._policy, self._confidence)

    @property
    def widget(self) -> Any:
        """The `ipywidgets.VBox` that shows all of it, to be laid out with others."""
        return self._panel

    def save_policy(self, path: Place, *, replace_file: bool = False) -> Location:
        """Write the chosen policy as TOML, with a comment of what it did here.

        Parameters
        ----------
        path : path or URL
            A file that is not there yet.
        replace_file : bool
            True lets a policy be there, and replaces it.

        Raises
        ------
        OutputError
            It is there already, it is something else than a policy, or it can't be written.

        Examples
        --------
        >>> import tempfile
        >>> place = Location.of(tempfile.mkdtemp()) / "policy.toml"
        >>> explorer = ThresholdExplorer({"explicit": [0.9], "minor": [0.7]}, policy=Policy.preset("strict"))
        >>> Policy.load(explorer.save_policy(place)) == explorer.policy
        True
        """
        if not str(path).strip():
            raise OutputError("there is no path; give that of a new file, such as policy.toml")
        place = Location.of(path)
        if place.exists() and not (replace_file and place.is_file()):
            what = "is there already" if place.is_file() else "is a folder"
            raise OutputError(f"{place} {what}; choose another name, or let the file be replaced")
        if place.exists():
            _require_policy(place)
        text = f"# Chosen by hand: {in_a_sentence(self.outcome)}.\n{self._policy.to_toml()}"
        with replacing(place) as file:
            file.write(text.encode())
        return place

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._panel._repr_mimebundle_(**options)

    def _build(self, ipywidgets: Any) -> None:
        explored = self._explored
        fixed = explored.fixed is not None
        names = explored.policy.pair.names
        self._controls = [
            threshold_control(name, grid, explored.policy.thresholds[name], disabled=fixed)
            for name, grid in zip(names, explored.plane.grids, strict=True)
        ]
        for control, grid, _ in self._axes():
            when_typed(control, grid)
            control.observe(self._moved, "place")
        wide, fitting = {"description_width": "initial"}, {"width": "max-content"}
        self._menu = ipywidgets.Dropdown(
            options=list(self._presets),
            value=next(name for name, preset in self._presets.items() if preset == explored.policy),
            description="Preset, at these thresholds",
            disabled=fixed,
            style=wide,
            layout=fitting,
        )
        self._menu.observe(self._moved, "value")
        self._figure = figure_widget(explored.plane, explored.policy)
        self._warnings, self._readout, self._written = (ipywidgets.HTML() for _ in range(3))
        self._path = ipywidgets.Text(value="policy.toml", description="Policy file", style=wide)
        self._replace = ipywidgets.Checkbox(
            value=False, description="Replace a file that is there", indent=False, layout=fitting
        )
        button = ipywidgets.Button(description="Write the policy", layout=fitting)
        button.on_click(lambda _: self._write())
        row = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}
        tables = ipywidgets.VBox([self._readout])
        tables.add_class("safetyfilter-tables")
        self._panel = ipywidgets.VBox(
            [
                ipywidgets.HTML(sentences_html(explored.notes, "notice")),
                *self._controls,
                self._menu,
                self._warnings,
                ipywidgets.Box([self._figure, tables], layout={**row, "align_items": "flex-start"}),
                ipywidgets.Box([self._path, self._replace, button], layout=row),
                self._written,
            ]
        )
        self._panel.add_class("safetyfilter-explorer")
        self._listening = True

    def _axes(self) -> Iterator[tuple[Any, Any, str]]:
        plane = self._explored.plane
        return zip(self._controls, plane.grids, plane.policy.pair.names, strict=True)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Let widgets be set without being answered one by one."""
        self._listening = False
        try:
            yield
        finally:
            self._listening = True

    def _moved(self, change: Any) -> None:
        """Take up the thresholds and the preset that the widgets show."""
        if not self._listening:
            return
        if change["name"] == "place":
            change["owner"].note = ""
        chosen = {name: float(grid.thresholds[control.place]) for control, grid, name in self._axes()}
        self._policy = at_thresholds(self._presets[self._menu.value], chosen)
        self._show()
        if change["name"] == "place":
            change["owner"].said = in_a_sentence(self.outcome)

    def _show(self) -> None:
        outcome = self.outcome
        self._readout.value = readout(
            outcome,
            self._start,
            self._policy.pair,
            findings=self.findings,
            confidence=self._confidence,
        )
        self._warnings.value = sentences_html(self._explored.warnings(self._policy, self._menu.value), "warning")
        show_areas(self._figure, self._policy)

    def _write(self) -> None:
        try:
            place = self.save_policy(self._path.value, replace_file=self._replace.value)
        except (SafetyFilterError, OSError, ValueError) as error:
            self._written.value = sentences_html([f"Not written: {error}"], "failed")
        else:
            self._replace.value = False
            self._written.value = sentences_html([f"The policy is written to {place}."], "done")


def _require_policy(place: Location) -> None:
    """Raise `OutputError` where a file that is to be replaced is not a policy, but someone's data or a run's record."""
    try:
        Policy.load(place)
    except PolicyError as error:
        raise OutputError(
            f"{place} is not a policy that can be read, and is not replaced; choose another name, or remove it first"
        ) from error


def _same_exclusions(one: Policy, other: Policy) -> bool:
    return one.exclude == other.exclude and one.exclude_at == other.exclude_at
