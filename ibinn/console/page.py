"""The page's layout: which part shows what, and what happens where somebody clicks.

Everything that is said comes from the other modules as text; here it is only put in its place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Before Gradio is imported, which would else tell its makers of every start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from ibinn.console import alarms, answering, damage, markup, truths
from ibinn.console.asking import Asker, Damaged, Looked, complaint, record_id_of
from ibinn.console.corruption import NAMES, Corruption
from ibinn.console.style import STYLE
from ibinn.errors import DataError, IbinnError
from ibinn.samples import Sample, digit, noise, photographs, thumbnails
from ibinn.types import ModelInfo

TITLE = "ibinn console"
_STATE_S = 3600.0
_DEFAULT_PER_1000 = 10
_FONTS = ("system-ui", "sans-serif")
_MONO = ("ui-monospace", "monospace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one visitor's page shows.

    Attributes:
        looked: The image with its answer; None before the first.
        damaged: The image damaged in the way chosen last; None before.
        info: The model, once the server said; None before.
    """

    looked: Looked | None = None
    damaged: Damaged | None = None
    info: ModelInfo | None = None


def samples() -> dict[str, Sample]:
    """The sample images by what the page calls them, without those of packages not installed."""
    found = [*thumbnails()]
    for more in (photographs, lambda: (digit(),), lambda: (noise(),)):
        with contextlib.suppress(DataError):
            found += more()
    return {f"{sample.name} ({sample.shows})": sample for sample in found}


def build(asker: Asker) -> gr.Blocks:
    """The page, asking one server."""
    parts = _Page(asker)
    page: gr.Blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        parts.lay_out()
        parts.connect(page)
    return page


def theme() -> gr.Theme:
    """Fonts of the visitor's own machine: nothing is fetched from elsewhere.

    Hints and the button are darker than Gradio's, which are hard to read.
    """
    return gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=_MONO).set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )


def launch(page: gr.Blocks, *, host: str, port: int) -> str:
    """Serves the page in threads of its own; its address.

    Args:
        page: As built.
        host: Address to listen on.
        port: Port; 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """
    page.queue(default_concurrency_limit=8)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port or _free_port(host),
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        show_error=True,
        state_session_capacity=200,
        max_file_size="64mb",
        theme=theme(),
        css=STYLE,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    return str(url)


class _Page:
    """The components of one page, and what they do."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._samples = samples()

    def lay_out(self) -> None:
        """Makes the components, from the top."""
        self.shown = gr.State(Shown(), time_to_live=_STATE_S)
        gr.HTML("<h1>Which class, and how far can it be trusted?</h1>")
        self.model = gr.HTML(elem_id="model")
        self.trouble = gr.HTML(elem_id="trouble")
        self.again = gr.Button("Connect again", visible=False, elem_id="again")
        with gr.Row():
            with gr.Column(min_width=320):
                _heading("1. An image")
                self.file = gr.File(
                    label="Drop an image here, or choose a file",
                    type="binary",
                    height=140,
                    elem_id="image",
                )
                self.sample = gr.Dropdown(
                    choices=list(self._samples),
                    value=None,
                    label="… or a sample",
                    elem_id="sample",
                )
                _heading("2. Its answer")
                self.answer = gr.HTML(_NOTHING_YET, elem_id="answer")
            with gr.Column(min_width=320):
                _heading("3. Where the evidence lies")
                self.map_class = gr.Dropdown(
                    choices=[], label="Heatmap of the class", elem_id="map-class"
                )
                self.heatmap = gr.HTML(elem_id="heatmap-part")
                self.evidence = gr.HTML(elem_id="evidence")
        with gr.Accordion("All tests", open=False, elem_id="tests-part"):
            self.tests = gr.HTML()
        with gr.Row():
            with gr.Column(min_width=320):
                _heading("4. False alarms beside misses")
                self.per_1000 = gr.Slider(
                    1,
                    alarms.MOST_PER_1000,
                    value=_DEFAULT_PER_1000,
                    step=1,
                    label="False alarms per 1,000 (1,000·α)",
                    info="What would another α make of this image, and what would be missed?",
                    elem_id="alpha",
                )
                self.trade_off = gr.HTML(elem_id="alarms")
            with gr.Column(min_width=320):
                _heading("5. Damage it, and watch the p-values")
                self.corruption = gr.Dropdown(
                    choices=[(NAMES[each], each.value) for each in Corruption],
                    value=Corruption.NOISE.value,
                    label="Damage",
                    elem_id="corruption",
                )
                self.severity = gr.Slider(
                    0,
                    5,
                    value=0,
                    step=1,
                    label="Severity",
                    info="0 is the image itself. The server is asked about all six at once.",
                    elem_id="severity",
                )
                self.damage = gr.HTML(elem_id="damage")
        _heading("6. What is true")
        self._lay_out_truth()

    def _lay_out_truth(self) -> None:
        with gr.Row():
            with gr.Column(min_width=320):
                self.said = gr.Radio(
                    choices=[said.value for said in truths.Said],
                    value=truths.Said.KNOWN.value,
                    label="The image shows",
                    elem_id="said",
                )
                self.known = gr.Dropdown(
                    choices=[], label="Class of the model", elem_id="known-class"
                )
                self.unknown = gr.Textbox(
                    label="Class that it does not know",
                    visible=False,
                    elem_id="unknown-class",
                    max_lines=1,
                )
            with gr.Column(min_width=320):
                self.source = gr.Textbox(
                    label="Who says so",
                    info="Your name, desk or process; it is kept with the statement.",
                    elem_id="source",
                    max_lines=1,
                )
                self.reaction = gr.Dropdown(
                    choices=list(truths.REACTIONS),
                    value=next(iter(truths.REACTIONS)),
                    label="What you did with the answer",
                    elem_id="reaction",
                )
                self.comment = gr.Textbox(label="Comment", lines=1, elem_id="comment")
                self.send = gr.Button("Send the truth", variant="primary", elem_id="send")
        self.told = gr.HTML(elem_id="told")

    def connect(self, page: gr.Blocks) -> None:
        """Says what happens on which event."""
        head = [self.shown, self.model, self.trouble, self.again, self.per_1000, self.known]
        on: Callable[..., Any] = page.load
        for on in (page.load, self.again.click):
            on(self._connected, self.shown, head, api_visibility="private")
        looks = [
            self.shown,
            self.model,
            self.trouble,
            self.answer,
            self.tests,
            self.map_class,
            self.heatmap,
            self.evidence,
            self.trade_off,
            self.severity,
            self.damage,
            self.known,
            self.told,
        ]
        asked = [self.shown, self.per_1000]
        self.file.upload(
            self._uploaded, [self.file, *asked], [*looks, self.sample], api_visibility="private"
        )
        self.sample.input(
            self._chosen, [self.sample, *asked], [*looks, self.file], api_visibility="private"
        )
        self.map_class.input(
            self._mapped,
            [self.shown, self.map_class],
            [self.shown, self.trouble, self.heatmap],
            api_visibility="private",
        )
        self.per_1000.change(
            self._weighed,
            asked,
            self.trade_off,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        damage = [self.shown, self.corruption, self.severity]
        for on in (self.corruption.input, self.severity.input):
            on(
                self._damaged,
                damage,
                [self.shown, self.trouble, self.damage],
                trigger_mode="always_last",
                api_visibility="private",
            )
        self.said.input(self._said, self.said, [self.known, self.unknown], api_visibility="private")
        form = [self.said, self.known, self.unknown, self.source, self.reaction, self.comment]
        self.send.click(self._sent, [self.shown, *form], self.told, api_visibility="private")

    # ---- what is done

    def _connected(self, shown: Shown) -> tuple[Any, ...]:
        try:
            info = self._asker.model()
        except IbinnError as error:
            again = gr.Button(visible=True)
            return shown, "", self._trouble(error), again, gr.skip(), gr.skip()
        low, high = alarms.range_per_1000(info)
        slider = gr.Slider(low, high, value=min(max(round(1000 * info.alpha), low), high))
        model = answering.model_html(info, self._asker.target)
        looked, damaged = shown.looked, shown.damaged
        now = Shown(looked=looked, damaged=damaged, info=info)
        classes = gr.Dropdown(choices=list(info.classes))
        return now, model, "", gr.Button(visible=False), slider, classes

    def _uploaded(self, data: bytes | None, shown: Shown, per_1000: float) -> tuple[Any, ...]:
        if data is None:
            return *self._unchanged(""), gr.skip()
        return *self._looked(data, "the image", shown, per_1000), gr.Dropdown(value=None)

    def _chosen(self, name: str | None, shown: Shown, per_1000: float) -> tuple[Any, ...]:
        sample = self._samples.get(name or "")
        if sample is None:
            return *self._unchanged(""), gr.skip()
        return *self._looked(sample.data, sample.name, shown, per_1000), gr.File(value=None)

    def _looked(self, data: bytes, name: str, shown: Shown, per_1000: float) -> tuple[Any, ...]:
        try:
            looked = self._asker.look(data, name)
        except IbinnError as error:
            # An older answer must not stand beside a newer image.
            return (
                Shown(info=shown.info),
                gr.skip(),
                self._trouble(error),
                _NOTHING_YET,
                "",
                gr.Dropdown(choices=[], value=None),
                "",
                "",
                self._alarms(Shown(info=shown.info), per_1000),
                gr.Slider(value=0),
                "",
                gr.skip(),
                "",
            )
        now = Shown(looked=looked, info=looked.info)
        classes = [score.name for score in looked.prediction.classes]
        explained = looked.explanation is not None
        return (
            now,
            answering.model_html(looked.info, self._asker.target),
            "",
            answering.answer_html(looked),
            answering.tests_table(looked.prediction),
            gr.Dropdown(
                choices=classes if explained else [], value=classes[0] if explained else None
            ),
            answering.heatmap_html(looked, classes[0]),
            answering.evidence_html(looked),
            self._alarms(now, per_1000),
            gr.Slider(value=0),
            "",
            gr.Dropdown(choices=list(looked.info.classes), value=None),
            "",
        )

    def _unchanged(self, trouble: str) -> tuple[Any, ...]:
        return (gr.skip(), gr.skip(), trouble, *(gr.skip() for _ in range(10)))

    def _mapped(self, shown: Shown, class_name: str | None) -> tuple[Any, ...]:
        if shown.looked is None or not class_name:
            return shown, "", ""
        try:
            looked = self._asker.with_heatmap(shown.looked, class_name)
        except IbinnError as error:
            return shown, self._trouble(error), ""
        now = Shown(looked=looked, damaged=shown.damaged, info=shown.info)
        return now, "", answering.heatmap_html(looked, class_name)

    def _weighed(self, shown: Shown, per_1000: float) -> str:
        return self._alarms(shown, per_1000)

    def _damaged(self, shown: Shown, corruption: str, severity: float) -> tuple[Any, ...]:
        if shown.looked is None:
            return shown, "", markup.notice("Choose an image first.", kind="plain")
        kind = Corruption(corruption)
        damaged = shown.damaged
        try:
            if (
                damaged is None
                or damaged.corruption is not kind
                or damaged.record_id != record_id_of(shown.looked.prediction)
            ):
                damaged = self._asker.damage(shown.looked, kind)
        except IbinnError as error:
            return shown, self._trouble(error), ""
        now = Shown(looked=shown.looked, damaged=damaged, info=shown.info)
        return now, "", damage.damage_html(damaged, int(severity))

    def _said(self, said: str) -> tuple[Any, ...]:
        return (
            gr.Dropdown(visible=said == truths.Said.KNOWN),
            gr.Textbox(visible=said == truths.Said.UNKNOWN),
        )

    def _sent(
        self,
        shown: Shown,
        said: str,
        known: str | None,
        unknown: str | None,
        source: str | None,
        reaction: str | None,
        comment: str | None,
    ) -> str:
        if shown.looked is None:
            return markup.notice("There is no answer yet to tell the truth about.")
        try:
            statement = truths.statement(
                said,
                known=known,
                unknown=unknown,
                source=source,
                reaction=reaction,
                comment=comment,
            )
            acknowledgement = self._asker.tell(shown.looked, statement)
        except IbinnError as error:
            return self._trouble(error)
        return truths.outcome_html(
            statement, acknowledgement, record_id_of(shown.looked.prediction)
        )

    def _alarms(self, shown: Shown, per_1000: float) -> str:
        if shown.info is None:
            return ""
        prediction = None if shown.looked is None else shown.looked.prediction
        return alarms.alarms_html(shown.info, prediction, per_1000 / 1000)

    def _trouble(self, error: IbinnError) -> str:
        return markup.notice(complaint(error, self._asker.target))


_NOTHING_YET = markup.paragraph("Drop an image, or choose a sample.", kind="dim")


def _heading(text: str) -> None:
    gr.HTML(f"<h2>{text}</h2>")


def _free_port(host: str) -> int:
    # Gradio takes 0 for its own range of ports, from 7860.
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])
