"""What Alembic runs: the migrations, on the connection (and in the transaction) of `opadpo.review.opening`."""

from alembic import context

from opadpo.review.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
