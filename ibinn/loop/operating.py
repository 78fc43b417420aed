"""What the operator does, by the commands that an operator has: train, sign, retrain, promote.

Everything lies in the loop's folder:

    data/       base/, acceptance/ and ood/: images in class folders
    base/       run of the base model      retrained/  run of the new one
    models/     bundles that the server may serve
    keys/       the operator's key         tokens/     a token for each caller
    export/     feedback and images        decision/   of the promotion
    state/      of the server              database/   the records
    logs/       of every command and of the server
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ibinn.loop.digits import Picture, write_folder
from ibinn.loop.processes import Database, run_command
from ibinn.loop.scenario import Scenario
from ibinn.loop.timeline import Timeline
from ibinn.manifest import read as read_manifest

RECIPE = "mnist-loop"
RETRAINING = ("epochs=6", "optimizer.learning_rate=0.006", "objective.gamma=8")
"""More than fine-tuning usually takes: noise of this kind is far from what the base knows."""
REPLAY = 0.5
"""Share of the old training images that is trained on again."""
_TOKEN = "ibinn_"
"""What every token begins with."""
_WAITS_FOR_APPROVAL = 3
"""Exit code of `ibinn-train promote`."""
_ROLES = {
    "application": ("classify", "explain", "feedback"),
    "auditor": ("audit",),
    "operator": ("admin",),
}


class Operator:
    """Runs the project's commands in the loop's folder.

    Args:
        out: The loop's folder.
        timeline: Told of what is done.
    """

    def __init__(self, out: Path, timeline: Timeline) -> None:
        self._out = out
        self._timeline = timeline
        self._log = out / "logs" / "commands.log"
        self.base_data = out / "data" / "base"
        self.models = out / "models"

    def token(self, holder: str) -> str:
        """The token of a holder."""
        return self.token_file(holder).read_text()

    def token_file(self, holder: str) -> Path:
        """File with the token of a holder; made when it is first asked for."""
        path = self._out / "tokens" / holder
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            roles = [word for role in _ROLES[holder] for word in ("--role", role)]
            said = run_command(
                "ibinn-serve", "token", "new", "--name", holder, *roles,
                "--file", self._tokens, log=self._log, secret=True,
            )  # fmt: skip
            path.touch(mode=0o600)
            path.write_text(next(word for word in said.split() if word.startswith(_TOKEN)))
        return path

    def deal(self, name: str, pictures: Iterable[Picture]) -> int:
        """Write images into a folder of class folders below ``data``; how many."""
        return write_folder(pictures, self._out / "data" / name)

    def base(self, scenario: Scenario, reuse: Path | None) -> Path:
        """The base model's bundle, trained now or by an earlier run on the same images."""
        run = self._out / "base"
        kept = None
        if reuse is not None:
            recipe = run_command("ibinn-train", "recipes", "--show", RECIPE, log=self._log)
            kept = reuse / f"{RECIPE}-{scenario.digest(json.loads(recipe))[:12]}"
            if (kept / "bundle" / "manifest.json").is_file():
                self._timeline.tell("note", f"the base model is that of {kept}")
                shutil.copytree(kept, run)
                return run / "bundle"
        run_command(
            "ibinn-train", "fit", "--recipe", RECIPE, "--data", self.base_data, "--out", run,
            "--accelerator", "cpu", "--ood-data", self._empty(), log=self._log,
        )  # fmt: skip
        if kept is not None:
            shutil.copytree(run, kept, ignore=shutil.ignore_patterns("checkpoint*", "tensorboard"))
        return run / "bundle"

    def approve_base(self, bundle: Path) -> Path:
        """Make the operator's key, sign the base model and put it into the models folder."""
        self.key.parent.mkdir(parents=True, exist_ok=True)
        run_command("ibinn", "keygen", "--out", self.key, log=self._log)
        for holder in _ROLES:
            self.token_file(holder)
        served = self.models / "base"
        shutil.copytree(bundle, served)
        run_command("ibinn", "sign", served, "--key", self.key, log=self._log)
        return served

    def server_flags(self, records: str) -> tuple[str, ...]:
        """How the server is started."""
        return (
            "--host=127.0.0.1",
            "--port=0",
            "--metrics-port=0",
            f"--bundle={self.models / 'base'}",
            f"--models={self.models}",
            "--watch-interval-s=0.5",
            "--require-signature",
            f"--trusted-keys={self.public_key}",
            f"--state-dir={self._out / 'state'}",
            f"--records={records}",
            "--keep-images=all",
            "--drift",
            f"--tokens={self._tokens}",
        )

    def retrain(self, records: str) -> Path:
        """Export what was said, and train the served model further with it; the run's folder."""
        export, run = self._out / "export", self._out / "retrained"
        run_command(
            "ibinn-serve", "records", "export", "--records", records,
            "--state-dir", self._out / "state", "--out", export, log=self._log,
        )  # fmt: skip
        run_command(
            "ibinn-train", "retrain", "--feedback", export, "--base", self.models / "base",
            "--data", self.base_data, "--out", run, "--exclude", self._out / "data" / "acceptance",
            "--trust", "application/line-*", "--trust", "application/laboratory",
            *(word for value in RETRAINING for word in ("--set", value)),
            "--replay", REPLAY, "--accelerator", "cpu", "--no-report",
            log=self._log,
        )  # fmt: skip
        return run

    def retraining(self, run: Path) -> Mapping[str, Any]:
        """What a retrained model is made of."""
        found: Mapping[str, Any] = json.loads((run / "retraining.json").read_text("utf-8"))
        return found

    def calibrated_on(self, run: Path) -> Mapping[str, int]:
        """How many old and new images the new model's p-values rest on."""
        role = self.retraining(run)["roles"]["calibration_b"]
        return {"old": role["images"] - role["new"], "new": role["new"]}

    def weights(self, bundle: Path) -> str:
        """Digest of a bundle's weights."""
        return read_manifest(bundle).weights_digest

    def keep_for_auditors(self, database: Database) -> None:
        """Note down which database holds the records, for `auditor_server`."""
        (self._out / "database.json").write_text(json.dumps({"kind": database.kind.lower()}))

    def promote(self, run: Path) -> None:
        """Hold the new model against the old one; if it passes, approve it, sign it, serve it.

        Raises:
            DataError: It was refused, or something went wrong; the reasons are in the message.
        """
        data = self._out / "data"
        said = run_command(
            "ibinn-train", "promote", run / "bundle", "--current", self.models / "base",
            "--acceptance", data / "acceptance", "--ood", data / "ood", "--out", self._decision,
            log=self._log, ok=(_WAITS_FOR_APPROVAL,),
        )  # fmt: skip
        for line in said.strip().splitlines():
            self._timeline.tell("note", line.strip())
        said = run_command(
            "ibinn-train", "approve", self._decision, "--by", "operator of the loop",
            "--key", self.key, "--sign-bundle", "--deploy", self.models, "--name", "retrained",
            "--trusted-keys", self.public_key, log=self._log,
        )  # fmt: skip
        self._timeline.tell("good", said.strip().splitlines()[-1])

    def decision(self) -> Mapping[str, Any]:
        """What the promotion rested on."""
        found: Mapping[str, Any] = json.loads((self._decision / "decision.json").read_text("utf-8"))
        return found

    @property
    def server_log(self) -> Path:
        """The server's log."""
        return self._out / "logs" / "server.log"

    @property
    def key(self) -> Path:
        """The operator's private key."""
        return self._out / "keys" / "operator.pem"

    @property
    def public_key(self) -> Path:
        """Its public part."""
        return self._out / "keys" / "operator.pub.pem"

    @property
    def _decision(self) -> Path:
        return self._out / "decision"

    @property
    def _tokens(self) -> Path:
        return self._out / "tokens.toml"

    def _empty(self) -> Path:
        folder = self._out / "data" / "none"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
