-- Three roles, each with what it needs. Run once, by an administrator, in the empty database that is to
-- be Nightshift's; the passwords come from the environment, where `ps` does not show them:
--
--   POSTGRES_MIGRATE_PASSWORD=… POSTGRES_WRITE_PASSWORD=… POSTGRES_READ_PASSWORD=… \
--     psql --dbname nightshift --file deploy/postgres/roles.sql
--
-- nightshift_migrate  owns the tables: `nightshift db upgrade`
-- nightshift_write    fills them: dispatcher, workers, imports; it can alter and drop nothing
-- nightshift_read     looks: analysts, reports

\set ON_ERROR_STOP on
\getenv migrate_password POSTGRES_MIGRATE_PASSWORD
\getenv write_password POSTGRES_WRITE_PASSWORD
\getenv read_password POSTGRES_READ_PASSWORD

BEGIN;

CREATE ROLE nightshift_migrate LOGIN PASSWORD :'migrate_password';
CREATE ROLE nightshift_write LOGIN PASSWORD :'write_password';
CREATE ROLE nightshift_read LOGIN PASSWORD :'read_password';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT, CREATE ON DATABASE :"DBNAME" TO nightshift_migrate;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO nightshift_write;
GRANT CONNECT ON DATABASE :"DBNAME" TO nightshift_read;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO nightshift_migrate;
GRANT USAGE ON SCHEMA public TO nightshift_write, nightshift_read;

-- Of what nightshift_migrate makes from now on, the partitions of each run among it.
ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_migrate REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_migrate GRANT EXECUTE ON FUNCTIONS TO nightshift_write;
ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_migrate IN SCHEMA public
    GRANT SELECT ON TABLES TO nightshift_read;
-- MAINTAIN (Postgres 17 or newer) lets it refresh the planner's statistics.
ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_migrate IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON TABLES TO nightshift_write;
ALTER DEFAULT PRIVILEGES FOR ROLE nightshift_migrate IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO nightshift_write;

COMMIT;
