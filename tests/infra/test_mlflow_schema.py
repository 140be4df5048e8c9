"""The job that brings MLflow's databases up: from nothing, and from an older MLflow's, with what is
in them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.infra.manifests import INFRA
from tests.study.stack import postgres

pytestmark = pytest.mark.long
OLD = "7f2a7d5fae7d"
"""When datasets came, in MLflow 2.4: 46 migrations have followed."""


@pytest.fixture
def schema() -> ModuleType:
    """infra/docker/mlflow_schema.py, which lies among the packages of the image."""
    pytest.importorskip("psycopg2", reason='pip install -c constraints.txt -e ".[infra]"')
    spec = importlib.util.spec_from_file_location("schema", INFRA / "docker" / "mlflow_schema.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_older_database_is_brought_up_with_what_is_in_it(
    schema: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy
    from alembic import command
    from mlflow import MlflowClient
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    with postgres(tmp_path / "postgres.log") as database:
        uri = database.uri("mlflow")
        (tmp_path / "auth.ini").write_text(f"[mlflow]\ndatabase_uri = {uri}\n")
        monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", uri)
        monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
        monkeypatch.setenv("MLFLOW_STUDY_PASSWORD", "the first of two")
        monkeypatch.setattr(schema, "GIVE_UP_SECONDS", 0)
        assert schema.main("wait") == 1, "an empty database is not ready"

        engine = sqlalchemy.create_engine(uri)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            settings = _get_alembic_config(uri)
            settings.attributes["connection"] = connection
            command.upgrade(settings, OLD)
        engine.dispose()
        run = "a" * 32
        record = f"""
            INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)
                VALUES (7, 'e', 's3://bucket/7', 'active');
            INSERT INTO runs (run_uuid, experiment_id, name, source_type, user_id, status,
                              lifecycle_stage, start_time, artifact_uri)
                VALUES ('{run}', 7, 'r', 'LOCAL', 'u', 'FINISHED', 'active', 1, 's3://bucket/7/r');
            INSERT INTO params (run_uuid, key, value) VALUES ('{run}', 'lr', '0.1')"""
        database.call("psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", record, "mlflow")
        assert schema.main("wait") == 1, "an older MLflow's database is not ready"

        assert schema.main("upgrade") == 0
        assert schema.main("wait") == 0
        monkeypatch.setenv("MLFLOW_STUDY_PASSWORD", "another password")
        assert schema.main("upgrade") == 0, "a second time changes nothing but the password"
        users = schema.SqlAlchemyStore()
        users.init_db(uri)
        assert users.authenticate_user(schema.ACCOUNT, "another password")
        assert not users.authenticate_user(schema.ACCOUNT, "the first of two")
        assert not users.get_user(schema.ACCOUNT).is_admin
        users.engine.dispose()
        assert MlflowClient(uri).get_run(run).data.params == {"lr": "0.1"}
