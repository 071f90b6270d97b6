export * as EventLog from "./EventLog.ts"
export * as FaultyChild from "./FaultyChild.ts"
export * as SeededScheduler from "./SeededScheduler.ts"
export * as TestingError from "./TestingError.ts"
