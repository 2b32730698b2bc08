"""Models as files of other runtimes, proven to be the same function: `litevit.export`, `litevit.load_exported`."""

from litevit.deploy.exported import Exported, load_exported
from litevit.deploy.exporter import export
from litevit.deploy.report import ExportError, ExportReport

__all__ = ["ExportError", "ExportReport", "Exported", "export", "load_exported"]
