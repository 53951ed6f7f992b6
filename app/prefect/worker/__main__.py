"""`python -m app.prefect.worker`: what `autoloader worker` and the service start."""

from app.prefect.worker.serving import main

if __name__ == "__main__":
    main()
