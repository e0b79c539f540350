"""The command that looks for damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import RenderableType
from rich.table import Table

from medclip.cli.args import Positional
from medclip.cli.format import Output
from medclip.errors import WorkError

if TYPE_CHECKING:
    from medclip.verify import Report

NUM_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Whether every file of a dataset, run, index or export is as medclip wrote it.

    Each is compared with its SHA-256 in the folder's manifest, and that with its own checksum; images with their
    hashes, decoded ones in DATA/cache with both, embeddings with length 1, faiss's files and Milvus's rows with the
    vectors. Files that are partial or in no manifest are named too. Exit code 1 where anything is found: the file, what
    is wrong, and the ids of the pairs that it touches.
    """

    path: Annotated[Positional[Path], tyro.conf.arg(metavar="PATH")]
    """A folder of this machine: a prepared dataset, a run, an index, embeddings, an export, or evaluations."""
    output: Output

    def run(self) -> None:
        from medclip.verify import verify

        report = verify(self.path)
        findings = [asdict(finding) for finding in report.findings]
        self.output.show({"kind": report.kind, "files": report.num_files, "damaged": findings}, _tables(report))
        if report.findings:
            names = ", ".join(dict.fromkeys(finding.file for finding in report.findings))
            raise WorkError(f"{self.path} is damaged: {names}.")


def _tables(report: Report) -> Iterator[RenderableType]:
    if not report.findings:
        yield f"{report.kind}: {report.num_files:,} files, nothing damaged"
        return
    table = Table("file", "", "pairs", title=f"{report.kind}: damage")
    for finding in report.findings:
        more = f" and {len(finding.ids) - NUM_SHOWN:,} more" if len(finding.ids) > NUM_SHOWN else ""
        table.add_row(finding.file, finding.problem, ", ".join(finding.ids[:NUM_SHOWN]) + more)
    yield table
