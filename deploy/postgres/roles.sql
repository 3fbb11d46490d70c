-- Three roles, each with what it needs. Run by a superuser in the database that is Nightshift's, when it
-- is empty, and again after an upgrade of Nightshift: what is granted already is left. The passwords come
-- from the environment, where `ps` does not show them:
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

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['nightshift_migrate', 'nightshift_write', 'nightshift_read']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE nightshift_migrate LOGIN PASSWORD :'migrate_password';
ALTER ROLE nightshift_write LOGIN PASSWORD :'write_password';
ALTER ROLE nightshift_read LOGIN PASSWORD :'read_password';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT, CREATE ON DATABASE :"DBNAME" TO nightshift_migrate;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO nightshift_write;
GRANT CONNECT ON DATABASE :"DBNAME" TO nightshift_read;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO nightshift_migrate;
GRANT USAGE ON SCHEMA public TO nightshift_write, nightshift_read;

-- What Postgres lets everybody do, and none of our roles needs: write large objects, the log of
-- changes and notifications, and hold locks that others wait for.
DO $$
DECLARE
    open_to_all regprocedure;
BEGIN
    FOR open_to_all IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND (
            proname ~ '^(lo_.*|loread|lowrite)$'
            OR proname ~ '^pg_(try_)?advisory_'
            OR proname IN ('pg_logical_emit_message', 'pg_notify')
        )
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', open_to_all);
    END LOOP;
END
$$;
-- Imports and the planning of indexes wait for each other by name.
GRANT EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) TO nightshift_write, nightshift_migrate;

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

-- Which revision the database is at, migrations alone may say; `nightshift db upgrade` sees to it too.
DO $$
BEGIN
    IF to_regclass('public.alembic_version') IS NOT NULL THEN
        REVOKE ALL ON public.alembic_version FROM nightshift_write;
        GRANT SELECT ON public.alembic_version TO nightshift_write;
    END IF;
END
$$;

COMMIT;
