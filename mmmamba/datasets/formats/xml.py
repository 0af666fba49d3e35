"""XML files, as data that is not trusted."""

import xml.etree.ElementTree as ET
from pathlib import Path


class _Builder(ET.TreeBuilder):
    """Refuses what could define entities, before any is."""

    def doctype(self, name, public_id, system):
        raise ValueError('a document type')


def parse_xml(file: Path, tag: str) -> ET.Element | None:
    """Read a file.

    Args:
        file (Path): The file.
        tag (str): What its root must be.

    Returns:
        Element, optional: The root, if it is one and the file not broken.
    """
    try:
        parser = ET.XMLParser(target=_Builder())
        root = ET.fromstring(file.read_bytes(), parser)
    # A LookupError is that of an encoding that Python does not know.
    except (OSError, LookupError, ValueError, ET.ParseError):
        return None
    return root if root.tag == tag else None
