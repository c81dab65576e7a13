"""Settings: what every op's settings have in common, and how they are written."""

import numpy as np
import pytest

from suite.case import Case
from suite.formats import float64
from suite.ops import NAMES, get_op
from suite.ops.attention.settings import SETTINGS, TENSORS
from suite.ops.attention.settings.base import Place
from suite.ops.attention.settings.causal import CAUSAL
from suite.settings import Part

EVERY = {f"{op} {setting.name}": (op, setting) for op in NAMES for setting in get_op(op).case_settings}


@pytest.fixture(params=EVERY.values(), ids=EVERY)
def setting(request):
    return request.param[1]


@pytest.mark.parametrize("op", NAMES)
def test_no_two_settings_of_an_op_have_one_name(op):
    names = [setting.name for setting in get_op(op).case_settings]
    assert len(set(names)) == len(names)


def test_levels_begin_with_the_default_and_are_covered_once(setting):
    assert setting.levels[0] == setting.default
    assert len(set(map(setting.text, setting.levels))) == len(setting.levels) > 1


def test_a_level_is_read_back_from_its_text(setting):
    for level in setting.levels[1:]:
        assert setting.read(setting.text(level)) == level


def test_what_is_not_the_default_is_said_in_words(setting):
    assert setting.wording(setting.default) is None
    if setting.wordings:
        said = [setting.wording(level) for level in setting.levels[1:]]
        assert set(said) == set(setting.wordings)


def test_every_setting_says_what_it_is(setting):
    assert type(setting).__doc__


def of(op, setting, level):
    """A small case with one level of one setting."""
    shape = (6, 8) if len(get_op(op).dims) == 2 else (2, 4, 5, 8)
    given = {"options": {}, "tensors": {}}
    if setting.part is Part.INPUT:
        given[setting.name] = level
    else:
        given["options" if setting.part is Part.OPTION else "tensors"][setting.name] = level
    return Case(op=op, family=get_op(op).plain_family, shape=shape, **given)


@pytest.mark.parametrize(("op", "setting"), EVERY.values(), ids=EVERY)
def test_every_level_makes_a_case_that_its_id_rebuilds(op, setting):
    for level in setting.levels[1:]:
        if setting.permits(level, {"heads": 4, "dimensions": 2}):
            case = of(op, setting, level)
            assert Case.from_id(case.id) == case
            assert case.shapes().keys() >= set(get_op(op).arguments)


def test_a_level_that_other_settings_rule_out_is_not_permitted():
    settings = {setting.name: setting for setting in get_op("attention").case_settings}

    assert settings["key_heads"].permits(2, {"heads": 4})
    assert not settings["key_heads"].permits(3, {"heads": 4})
    assert not settings["enable_gqa"].permits(False, {"heads": 4, "key_heads": 2})
    assert not get_op("softmax").setting("dim").permits(1, {"dimensions": 1})


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_a_neutral_level_changes_no_score_and_hides_no_key(one):
    op, case = get_op("attention"), Case(op="attention", family="normal", shape=(2, 4, 5, 8))
    inputs, options = case.inputs(float64), case.resolved_options()
    plain = op.problem(inputs, options)
    for what, value in one.neutral(case.shapes()).items():
        given = {one.name: value}
        tensor = one.name in TENSORS
        same = op.problem(inputs | (given if tensor else {}), options | ({} if tensor else given))

        assert np.array_equal(same.x[:, : plain.x.shape[1]], plain.x), what
        assert np.array_equal(same.visible, plain.visible), what


@pytest.mark.parametrize("one", [one for one in SETTINGS if one.hides_keys], ids=lambda one: one.name)
def test_the_equivalent_mask_shows_the_same_keys(one):
    op = get_op("attention")
    for level in one.levels[1:]:
        case = of("attention", one, level)
        inputs, options = case.inputs(float64), case.resolved_options()
        value = inputs.get(one.name) if one.name in TENSORS else options[one.name]
        place = Place.of_all((2, 4, 5, 5), CAUSAL.offset(options["causal"], 5, 5))
        mask = one.equivalent(value, place)
        if mask is None:
            assert value.dtype != bool
            continue
        without = {name: x for name, x in inputs.items() if name != one.name} | {"mask": mask}

        told = op.problem(inputs, options)
        again = op.problem(without, {**options, **({} if one.name in TENSORS else {one.name: one.default})})
        assert np.array_equal(told.visible, again.visible)
