"""The configs that come with the package, found by name from any folder."""

from pathlib import Path

from mobjrec.errors import UserError

PACKAGE = Path(__file__).resolve().parent


def folder() -> Path:
    """The folder of shipped configs: inside an installed package, or beside it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """Names of the shipped configs, sorted: the files' names without `.yaml`."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def config(name: str) -> Path:
    """The file that `name` means: that path if it exists, else the shipped `NAME`, `NAME.yaml` or `configs/NAME.yaml`.

    UserError if there is neither, with the names that are shipped.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = folder() / f"{path.stem}.yaml"
    if path.parent in (Path(), Path("configs")) and path.suffix in ("", ".yaml") and shipped.is_file():
        return shipped
    raise UserError(
        f"no config file {name}, and no shipped config of that name; shipped are: {', '.join(names()) or 'none'}"
    )
