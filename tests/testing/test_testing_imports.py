import subprocess
import sys

HEAVY = ("flax", "optax", "orbax", "pyarrow", "pydantic", "pytest", "hypothesis", "tokenizers", "transformers")


def test_the_suites_need_numpy_and_jax_alone():
    code = f"import sys, mobjrec.testing; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
