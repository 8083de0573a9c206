"""What pyproject.toml cannot say: `configs/`, beside the package here, is installed inside it as `mobjrec.configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mobjrec", "mobjrec.*"]), "mobjrec.configs"],
    package_dir={"mobjrec.configs": "configs"},
)
