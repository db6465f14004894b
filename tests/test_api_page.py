"""The page of the programming interface is what the code says, and its examples run."""

import api_page
import pytest


def test_the_page_is_the_one_that_the_tool_writes():
    assert api_page.PAGE.read_text("utf-8") == api_page.page(), "run `python tools/api_page.py`"


@pytest.mark.parametrize("place", api_page.EXAMPLES)
def test_an_entry_point_explains_its_arguments(place):
    value = api_page.found(place)
    assert len(value.__doc__) > 60
    assert api_page.imports(*place.split(":")) + api_page.EXAMPLES[place] in api_page.page()


def test_the_examples_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "__main__"}
    exec(api_page.STORY, space)
    for place, example in api_page.EXAMPLES.items():
        exec(api_page.imports(*place.split(":")) + example, space)
    printed = capsys.readouterr().out
    assert "How do I boil an egg?" in printed and "2 calls to make" in printed
    assert (tmp_path / "my-prompter" / "adapter_model.safetensors").exists()
