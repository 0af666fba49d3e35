"""What a look at a data set finds."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

#: From the worst on. An error: training would fail, lose everything or learn
#: wrong labels. A warning: some are lost. The rest is info.
SEVERITIES = ('error', 'warning', 'info')


class DatasetError(RuntimeError):
    """A data set that cannot serve; the message says why.

    Args:
        message (str): Why.
        findings (list[Finding], optional): All that was found, if more than
            the message. Defaults to None.
    """

    def __init__(
        self, message: str, findings: list['Finding'] | None = None
    ) -> None:
        super().__init__(message)
        self.findings = findings


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or was made right.

    Attributes:
        severity (str): Of :data:`SEVERITIES`.
        kind (str): A short name, the same for all data sets.
        message (str): What is wrong, and the remedy.
        file (str): Where. Defaults to an empty string.
        count (int): How many images, objects or files. Defaults to 1.
        split (str): ``train``, ``val`` or ``test``. Defaults to an empty
            string.
    """

    severity: str
    kind: str
    message: str
    file: str = ''
    count: int = 1
    split: str = ''

    def of(self, split: str) -> 'Finding':
        """Return the finding with its split."""
        return replace(self, split=split)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Return the errors among them."""
    return [f for f in findings if f.severity == 'error']


def raise_errors(findings: list[Finding]) -> None:
    """Raise all errors in one.

    Args:
        findings (list[Finding]): Findings of any severity.

    Raises:
        DatasetError: If there is an error among them.
    """
    messages = dict.fromkeys(f.message for f in errors(findings))
    if messages:
        raise DatasetError('\n'.join(messages), findings)


def listing(names: Iterable, most: int = 3) -> str:
    """Name the first of them, and how many more there are."""
    names = [str(n) for n in names]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
