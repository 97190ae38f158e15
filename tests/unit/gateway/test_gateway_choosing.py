"""Which model a request is for: by header, by `model`, or the team's own."""

import pytest
from codetune_api.gateway import GatewayConfig, Upstream
from codetune_gateway.choosing import choose
from codetune_gateway.errors import BadRequest, GatewayError, UnknownModel


def upstream(model: str, deployment: str = "base") -> Upstream:
    return Upstream(url="http://base", model=model, deployment=deployment)


TEAM = GatewayConfig(
    team="builders",
    default=upstream("starcoder"),
    projects={"shop": upstream("shop-adapter"), "site": upstream("starcoder", "other"), "blog": upstream("prose")},
)
BOTH = {"shop": upstream("same", "second"), "blog": upstream("same", "first")}


@pytest.mark.parametrize(
    ("expected", "project", "model"),
    [
        pytest.param("starcoder", "", None, id="nothing said"),
        pytest.param("starcoder", "", "", id="an empty model"),
        pytest.param("starcoder", "", "default", id="the default by name"),
        pytest.param("shop-adapter", "", "project/shop", id="a project as the model"),
        pytest.param("shop-adapter", "shop", None, id="a project in the header"),
        pytest.param("shop-adapter", "shop", "project/blog", id="the header before the model"),
        pytest.param("shop-adapter", "shop", "nonsense", id="the header, whatever the model is"),
        pytest.param("prose", "", "prose", id="a model by the name at its server"),
    ],
)
def test_a_request_is_for(expected: str, project: str, model: object) -> None:
    assert choose(TEAM, project, model).upstream.model == expected


@pytest.mark.parametrize(
    ("expected", "config", "model"),
    [
        pytest.param("base", TEAM, "starcoder", id="the default first"),
        pytest.param("first", GatewayConfig(team="t", projects=BOTH), "same", id="then projects by name"),
    ],
)
def test_a_name_that_several_servers_have_means(expected: str, config: GatewayConfig, model: str) -> None:
    assert choose(config, "", model).upstream.deployment == expected


@pytest.mark.parametrize(
    ("error", "said", "project", "model"),
    [
        pytest.param(UnknownModel, "no project 'none', which model names", "", "project/none", id="no such project"),
        pytest.param(UnknownModel, "which X-Codetune-Project names", "none", "default", id="nor in the header"),
        pytest.param(UnknownModel, "no project ''", "", "project/", id="a project without a name"),
        pytest.param(UnknownModel, "no model 'gpt-4'", "", "gpt-4", id="no such model"),
        pytest.param(UnknownModel, "no model 'Starcoder'", "", "Starcoder", id="another case"),
        pytest.param(BadRequest, "must be a string", "", 7, id="a number"),
        pytest.param(BadRequest, "must be a string", "shop", ["shop"], id="a list, even where the header decides"),
        pytest.param(BadRequest, "must be a string", "", False, id="a truth value"),
    ],
)
def test_a_request_is_refused(error: type[GatewayError], said: str, project: str, model: object) -> None:
    with pytest.raises(error, match=said) as refused:
        choose(TEAM, project, model)
    assert refused.value.param == "model"
    assert refused.value.message.endswith("Its models are `default`, `project/blog`, `project/shop`, `project/site`.")


@pytest.mark.parametrize("model", [None, "", "default"])
def test_without_a_default_a_project_must_be_named(model: object) -> None:
    with pytest.raises(BadRequest, match=r"no default model: name a project\. Its models are `project/shop`\."):
        choose(GatewayConfig(team="t", projects={"shop": upstream("x")}), "", model)


def test_a_team_without_models_says_what_it_lacks() -> None:
    with pytest.raises(BadRequest, match="none yet: give its Team a completionModel"):
        choose(GatewayConfig(team="t"), "", None)


def test_a_message_repeats_no_more_of_a_name_than_helps() -> None:
    with pytest.raises(UnknownModel) as refused:
        choose(TEAM, "", "x" * 1_000_000)
    assert len(refused.value.message) < 500
