"""What every stage stands on: params, running a stage, files, arrays, package versions."""
