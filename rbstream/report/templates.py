"""How pages are made of templates: escaped, strict, with the look that all of them share."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_environment(package: str) -> Environment:
    """Templates of a package, e.g. `rbstream.report`; they include `look.css.j2` from here."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("rbstream.report", ".")]),
        autoescape=True,  # names and texts are input, and may be hostile
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
