"""One case, measured in this process: what `ageflow.benchmark.measure.measure` starts."""

import json
import sys

if __name__ == "__main__":
    from ageflow.benchmark.measure import Case, measure_here

    print(json.dumps(measure_here(Case.model_validate_json(sys.argv[1]))))
