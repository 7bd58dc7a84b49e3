import fnmatch

from tests.architecture.sources import PACKAGES, ROOT

PRODUCT = {"manage.py", *PACKAGES, "templates", "requirements.txt", "tests"}
FURNITURE = {
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml", "requirements-dev.txt"),
    *(".env.example", ".gitignore", ".git", "compose.yaml", "Dockerfile", ".ci", "docs", "benchmarks", "examples"),
}
ROOMS_WITHOUT_A_MEANING = {"utils", "helpers", "common", "types", "exceptions"}
ROOMS_OF_AN_APP = {
    "core",
    "models",
    "selectors",
    "services",
    "api",
    "admin",
    "tasks",
    "management",
    "migrations",
    "apps",
}


def test_the_top_level_holds_the_product_and_its_furniture_and_nothing_else():
    made_by_tools = [line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    present = {path.name for path in ROOT.iterdir()}
    found = {name for name in present if not any(fnmatch.fnmatch(name, pattern) for pattern in made_by_tools)}

    assert found - PRODUCT - FURNITURE == set()
    assert PRODUCT - found == set()


def test_no_module_has_a_name_that_says_nothing():
    names = {path.stem: path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}

    assert ROOMS_WITHOUT_A_MEANING & set(names) == set()


def test_every_app_has_the_same_rooms():
    for app in ("subscriptions", "metering", "invoices"):
        rooms = {
            path.stem for path in (ROOT / app).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        }

        assert rooms - {"__init__"} == ROOMS_OF_AN_APP, app
